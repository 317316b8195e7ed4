import json
from collections.abc import Iterator
from typing import Any

import pytest

from related_images import errors
from related_images.errors import RelatedImagesError, StoreUnavailable
from related_images.middleware import responses

GET = {"REQUEST_METHOD": "GET"}
PROGRAMS = (
    errors.BusUnusable,
    errors.CinderUnreachable,
    errors.ConfigurationError,
    errors.NotServed,
    errors.NotificationMalformed,
    errors.NovaUnreachable,
    errors.UntrustedCinderAnswer,
    errors.UntrustedGlanceAnswer,
    errors.UntrustedNovaAnswer,
)
"""Errors of starts and commands, which are never in a response."""


def tree(root: type[RelatedImagesError] = RelatedImagesError) -> Iterator[type[RelatedImagesError]]:
    """Yield every error class of the project below ``root``."""
    for kind in root.__subclasses__():
        if kind.__module__.startswith("related_images."):
            yield kind
            yield from tree(kind)


def made(kind: type[RelatedImagesError]) -> RelatedImagesError:
    if kind is responses.MethodNotAllowed:
        return responses.MethodNotAllowed("PUT", ["POST", "GET"])
    return kind("what was wrong")


EVERY = [kind for kind in tree() if kind.__module__ in (errors.__name__, responses.__name__)]
ANSWERED = [kind for kind in EVERY if not issubclass(kind, PROGRAMS)]


def started(status: str, headers: list[tuple[str, str]], into: list[Any]) -> None:
    into[:] = [status, dict(headers)]


@pytest.mark.parametrize("kind", ANSWERED, ids=[kind.__name__ for kind in ANSWERED])
def test_every_error_has_the_same_json_format(kind: type[RelatedImagesError]) -> None:
    seen: list[Any] = []
    error = made(kind)
    environ = {"REQUEST_METHOD": "GET", "openstack.request_id": "req-1"}
    response = responses.error_response(environ, error)
    body = b"".join(response(environ, lambda status, headers: started(status, headers, seen)))
    answered = json.loads(body)
    shown = answered["error"]
    # python-glanceclient reads the message of each top-level value
    assert list(answered) == ["error"]
    assert shown["status"] == int(seen[0].split()[0]) == responses.status_of(error)
    assert (shown["code"], shown["title"], shown["message"]) == (kind.code, kind.title, str(error))
    assert shown["request_id"] == "req-1"
    assert seen[1]["Content-Type"].startswith("application/json")
    assert int(seen[1]["Content-Length"]) == len(body)
    assert shown["status"] >= 400


def test_every_error_has_its_own_code() -> None:
    codes = [RelatedImagesError.code, *(kind.code for kind in EVERY)]
    assert sorted(set(codes)) == sorted(codes)


def test_every_error_is_in_the_documented_tree() -> None:
    drawn = str(errors.__doc__)
    missing = [kind for kind in EVERY if kind.__name__ not in drawn]
    assert missing == [responses.MethodNotAllowed]


def test_only_database_errors_have_a_5xx_status() -> None:
    faults = {kind for kind in ANSWERED if responses.status_of(made(kind)) >= 500}
    assert faults == {kind for kind in ANSWERED if issubclass(kind, StoreUnavailable)}


@pytest.mark.parametrize("kind", [kind for kind in EVERY if issubclass(kind, StoreUnavailable)])
def test_503_has_retry_after(kind: type[StoreUnavailable]) -> None:
    """openstacksdk waits this long before each of five retries."""
    seen: list[Any] = []
    error = kind("down")
    responses.error_response(GET, error)(
        GET, lambda status, headers: started(status, headers, seen)
    )
    assert seen[0] == "503 Service Unavailable"
    assert seen[1]["Retry-After"] == "1"


def test_405_has_allow() -> None:
    seen: list[Any] = []
    error = responses.MethodNotAllowed("PUT", ["POST", "GET"])
    responses.error_response(GET, error)(
        GET, lambda status, headers: started(status, headers, seen)
    )
    assert seen[1]["Allow"] == "GET, POST"


def test_204_has_no_content_length() -> None:
    seen: list[Any] = []
    body = responses.no_content()(GET, lambda status, headers: started(status, headers, seen))
    assert (body, seen) == ([b""], ["204 No Content", {}])
