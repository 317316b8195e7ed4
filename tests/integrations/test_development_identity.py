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


class App:
    """Answers every request with 200, and keeps the WSGI environment of the last one."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] | None = None

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        self.seen = dict(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"seen"]


def ask(headers: dict[str, str], **environ: Any) -> tuple[Answer, dict[str, Any] | None]:
    app = App()
    request = wsgi.environ_of("GET", "/v2/images", headers) | environ
    return wsgi.run(DevelopmentIdentity(app), request), app.seen


def identity_seen(headers: dict[str, str]) -> dict[str, Any]:
    answer, seen = ask(headers)
    assert answer.status == 200
    assert seen is not None
    return seen


def test_the_token_sets_the_headers_of_authtoken() -> None:
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


def test_a_service_token_sets_the_service_headers() -> None:
    seen = identity_seen({**ALICE, "X-Service-Token": "nova:service:service"})
    assert (seen["HTTP_X_USER_ID"], seen["HTTP_X_ROLES"]) == ("alice", "reader")
    assert seen["HTTP_X_SERVICE_IDENTITY_STATUS"] == "Confirmed"
    assert seen["HTTP_X_SERVICE_USER_ID"] == "nova"
    assert seen["HTTP_X_SERVICE_PROJECT_ID"] == "service"
    assert seen["HTTP_X_SERVICE_ROLES"] == "service"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("reader", "reader"),
        ("member", "member,reader"),
        ("service,member", "service,member,reader"),
        ("admin", "admin,manager,member,reader"),
        ("reader,member,member", "reader,member"),
    ],
)
def test_roles_imply_others_as_in_a_fresh_keystone(given: str, expected: str) -> None:
    assert identity_seen({"X-Auth-Token": f"alice:demo:{given}"})["HTTP_X_ROLES"] == expected


def test_percent_encoded_characters_are_decoded() -> None:
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
def test_a_malformed_token_is_refused_with_the_format(header: str, token: str) -> None:
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
    app = development_identity_factory({})(App())
    answer = wsgi.run(app, wsgi.environ_of("HEAD", "/v2/images", {}))
    assert (answer.status, answer.body) == (401, b"")
    assert int(str(answer.headers["Content-Length"])) > 0


def test_identity_headers_of_the_caller_are_removed() -> None:
    removed_by_authtoken = set(_AuthTokenRequest.blank("/")._all_auth_headers())
    forged = removed_by_authtoken | {"OpenStack-System-Scope", "X-Service-Catalog"}
    seen = identity_seen(ALICE | dict.fromkeys(forged, "forged"))
    assert [name for name, text in seen.items() if text == "forged"] == []


def test_other_headers_stay() -> None:
    others = {"X-Image-Meta-Store": "local", "X-Instance-ID": "web-1", "User-Agent": "curl"}
    seen = identity_seen(ALICE | others)
    assert (seen["HTTP_X_INSTANCE_ID"], seen["HTTP_USER_AGENT"]) == ("web-1", "curl")
    assert seen["HTTP_X_IMAGE_META_STORE"] == "local"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_callers_on_this_host_are_accepted(address: str) -> None:
    answer, _ = ask(ALICE, REMOTE_ADDR=address)
    assert answer.status == 200


@pytest.mark.parametrize(
    "address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "", "localhost"]
)
def test_callers_on_other_hosts_are_refused(address: str) -> None:
    answer, seen = ask(ALICE, REMOTE_ADDR=address)
    assert (answer.status, seen) == (403, None)
    assert answer.json["error"]["code"] == "request.forbidden"


@pytest.mark.parametrize(("allowed", "status"), [("1", 200), ("0", 403), ("true", 403)])
def test_callers_on_other_hosts_are_accepted_if_allowed(
    monkeypatch: pytest.MonkeyPatch, allowed: str, status: int
) -> None:
    monkeypatch.setenv(ALLOW_REMOTE, allowed)
    app = development_identity_factory({})(App())
    request = wsgi.environ_of("GET", "/v2/images", ALICE) | {"REMOTE_ADDR": "192.0.2.7"}
    assert wsgi.run(app, request).status == status


@pytest.mark.parametrize("key", ["keystone.token_auth", "keystone.token_info"])
def test_a_request_that_authtoken_processed_is_refused(key: str) -> None:
    answer, seen = ask(ALICE, **{key: object()})
    assert (answer.status, seen) == (500, None)
    assert answer.json["error"]["code"] == "settings.invalid"


def test_an_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="allow_remote"):
        development_identity_factory({}, allow_remote="true")


DEVELOPMENT = (
    "use = egg:related-images#development_identity",
    "paste.filter_factory = related_images.integrations.glance:development_identity_factory",
)
AUTHTOKEN = (
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
{development}

[filter:auth]
{authtoken}

[filter:renamed]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
"""


def app_factory(global_conf: dict[str, str]) -> App:
    return App()


def load(
    directory: Path, filters: str, development: str = DEVELOPMENT[0], authtoken: str = AUTHTOKEN[0]
) -> Any:
    path = directory / "paste.ini"
    path.write_text(PASTE.format(filters=filters, development=development, authtoken=authtoken))
    return deploy.loadapp(f"config:{path}", "main")


@pytest.mark.parametrize(
    ("development", "authtoken"), list(itertools.product(DEVELOPMENT, AUTHTOKEN))
)
@pytest.mark.parametrize("filters", ["dev auth", "auth dev"])
def test_a_pipeline_with_authtoken_is_refused(
    tmp_path: Path, filters: str, development: str, authtoken: str
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"authtoken.*; remove the development identity filter"
    ):
        load(tmp_path, filters, development, authtoken)


def test_authtoken_in_another_pipeline_is_accepted(tmp_path: Path) -> None:
    app = load(tmp_path, "dev")
    assert wsgi.call(app, "GET", "/v2/images", ALICE).status == 200
