import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from keystonemiddleware.auth_token._request import _AuthTokenRequest
from paste import deploy

from related_images.errors import ConfigurationError
from related_images.integrations.development_identity import (
    ALLOW_REMOTE,
    DevelopmentIdentity,
    development_identity_factory,
)
from tests import wsgi
from tests.servers import Answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ALICE = {"X-Auth-Token": "alice:demo:reader"}


class Registry:
    """Answers every request with 200 and keeps the environment it was given."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] | None = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        self.seen = dict(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"seen"]


def ask(headers: dict[str, str], **environ: Any) -> tuple[Answer, dict[str, Any] | None]:
    registry = Registry()
    request = wsgi.environ_of("GET", "/v2/images", headers) | environ
    return wsgi.run(DevelopmentIdentity(registry), request), registry.seen


def identity_seen(headers: dict[str, str]) -> dict[str, Any]:
    answer, seen = ask(headers)
    assert answer.status == 200
    assert seen is not None
    return seen


def test_the_token_becomes_what_authtoken_would_set() -> None:
    seen = identity_seen({"X-Auth-Token": "alice:demo:reader,service"})
    assert {name: text for name, text in seen.items() if name.startswith("HTTP_")} == {
        "HTTP_X_AUTH_TOKEN": "alice:demo:reader,service",
        "HTTP_X_IDENTITY_STATUS": "Confirmed",
        "HTTP_X_USER_ID": "alice",
        "HTTP_X_USER_NAME": "alice",
        "HTTP_X_USER_DOMAIN_ID": "default",
        "HTTP_X_USER_DOMAIN_NAME": "default",
        "HTTP_X_PROJECT_ID": "demo",
        "HTTP_X_PROJECT_NAME": "demo",
        "HTTP_X_PROJECT_DOMAIN_ID": "default",
        "HTTP_X_PROJECT_DOMAIN_NAME": "default",
        "HTTP_X_ROLES": "reader,service",
    }


def test_a_service_token_speaks_for_the_service_beside_the_user() -> None:
    seen = identity_seen({**ALICE, "X-Service-Token": "nova:service:service"})
    assert (seen["HTTP_X_USER_ID"], seen["HTTP_X_ROLES"]) == ("alice", "reader")
    assert seen["HTTP_X_SERVICE_IDENTITY_STATUS"] == "Confirmed"
    assert seen["HTTP_X_SERVICE_USER_ID"] == "nova"
    assert seen["HTTP_X_SERVICE_PROJECT_ID"] == "service"
    assert seen["HTTP_X_SERVICE_ROLES"] == "service"


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ("reader", "reader"),
        ("member", "member,reader"),
        ("service,member", "service,member,reader"),
        ("admin", "admin,manager,member,reader"),
        ("reader,member,member", "reader,member"),
    ],
)
def test_roles_imply_others_as_in_a_fresh_keystone(given: str, held: str) -> None:
    assert identity_seen({"X-Auth-Token": f"alice:demo:{given}"})["HTTP_X_ROLES"] == held


def test_percent_encoded_characters_are_understood() -> None:
    seen = identity_seen({"X-Auth-Token": "alice%40home:demo:reader%2Cservice"})
    assert (seen["HTTP_X_USER_ID"], seen["HTTP_X_ROLES"]) == ("alice@home", "reader,service")


@pytest.mark.parametrize("header", ["X-Auth-Token", "X-Service-Token"])
@pytest.mark.parametrize(
    "token",
    [
        "",
        "alice",
        "alice:demo",
        "alice:demo:",
        ":demo:member",
        "alice::member",
        "alice:demo:member,",
        "alice:demo:member:more",
        "alice:demo:member\n",
        "alice:demo:mem ber",
        "alice:demo:m%0Aember",
        "älice:demo:member",
        f"{'a' * 65}:demo:member",
    ],
)
def test_a_malformed_token_is_refused_naming_the_form(header: str, token: str) -> None:
    answer, seen = ask(ALICE | {header: token})
    assert (answer.status, seen) == (401, None)
    error = answer.json["error"]
    assert (error["status"], error["code"]) == (401, "identity.required")
    assert "user:project:role,role" in error["message"]
    assert header in error["message"]


def test_a_request_without_a_token_is_refused() -> None:
    answer, seen = ask({})
    assert (answer.status, seen) == (401, None)
    assert answer.headers["WWW-Authenticate"]
    assert "X-Auth-Token is missing" in answer.json["error"]["message"]


def test_a_head_is_refused_without_a_body() -> None:
    app = development_identity_factory({})(Registry())
    answer = wsgi.run(app, wsgi.environ_of("HEAD", "/v2/images", {}))
    assert (answer.status, answer.body) == (401, b"")
    assert int(str(answer.headers["Content-Length"])) > 0


def test_what_a_caller_claims_is_removed_as_authtoken_removes_it() -> None:
    removed_by_authtoken = set(_AuthTokenRequest.blank("/")._all_auth_headers())
    claimed = removed_by_authtoken | {"OpenStack-System-Scope", "X-Service-Catalog"}
    seen = identity_seen(ALICE | dict.fromkeys(claimed, "forged"))
    assert [name for name, text in seen.items() if text == "forged"] == []


def test_headers_that_claim_nothing_stay() -> None:
    others = {"X-Image-Meta-Store": "local", "X-Instance-ID": "web-1", "User-Agent": "curl"}
    seen = identity_seen(ALICE | others)
    assert (seen["HTTP_X_INSTANCE_ID"], seen["HTTP_USER_AGENT"]) == ("web-1", "curl")
    assert seen["HTTP_X_IMAGE_META_STORE"] == "local"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_callers_on_this_machine_are_answered(address: str) -> None:
    answer, _ = ask(ALICE, REMOTE_ADDR=address)
    assert answer.status == 200


@pytest.mark.parametrize(
    "address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "", "localhost"]
)
def test_callers_elsewhere_are_refused(address: str) -> None:
    answer, seen = ask(ALICE, REMOTE_ADDR=address)
    assert (answer.status, seen) == (403, None)
    assert answer.json["error"]["code"] == "request.forbidden"


@pytest.mark.parametrize(("allowed", "status"), [("1", 200), ("0", 403), ("true", 403)])
def test_callers_elsewhere_are_answered_if_that_was_allowed(
    monkeypatch: pytest.MonkeyPatch, allowed: str, status: int
) -> None:
    monkeypatch.setenv(ALLOW_REMOTE, allowed)
    app = development_identity_factory({})(Registry())
    request = wsgi.environ_of("GET", "/v2/images", ALICE) | {"REMOTE_ADDR": "192.0.2.7"}
    assert wsgi.run(app, request).status == status


@pytest.mark.parametrize("mark", ["keystone.token_auth", "keystone.token_info"])
def test_a_request_that_authtoken_judged_is_refused(mark: str) -> None:
    answer, seen = ask(ALICE, **{mark: object()})
    assert (answer.status, seen) == (500, None)
    assert answer.json["error"]["code"] == "settings.invalid"


def test_it_has_no_options() -> None:
    with pytest.raises(ConfigurationError, match="allow_remote"):
        development_identity_factory({}, allow_remote="true")


OURS = (
    "use = egg:related-images#development_identity",
    "paste.filter_factory = related_images.integrations.glance:development_identity_factory",
)
THEIRS = (
    "paste.filter_factory = keystonemiddleware.auth_token:filter_factory",
    "use = egg:keystonemiddleware#auth_token",
    "use = renamed",
)
PASTE = """
[pipeline:main]
pipeline = {filters} app

[app:app]
paste.app_factory = tests.integrations.test_development_identity:app_factory

[filter:dev]
{ours}

[filter:auth]
{theirs}

[filter:renamed]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
"""


def app_factory(global_conf: dict[str, str]) -> Registry:
    return Registry()


def load(directory: Path, filters: str, ours: str = OURS[0], theirs: str = THEIRS[0]) -> Any:
    path = directory / "paste.ini"
    path.write_text(PASTE.format(filters=filters, ours=ours, theirs=theirs))
    return deploy.loadapp(f"config:{path}", "main")


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(OURS, THEIRS)))
@pytest.mark.parametrize("filters", ["dev auth", "auth dev"])
def test_it_is_not_loaded_beside_authtoken(
    tmp_path: Path, filters: str, ours: str, theirs: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"authtoken.*leave .* out"):
        load(tmp_path, filters, ours, theirs)


def test_it_is_loaded_where_authtoken_stands_in_another_pipeline(tmp_path: Path) -> None:
    app = load(tmp_path, "dev")
    assert wsgi.call(app, "GET", "/v2/images", ALICE).status == 200
