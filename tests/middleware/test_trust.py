"""Permissions: all combinations of identities and routes, compared with independent rules.

An app that stores its requests replaces Glance, because Glance's responses do not matter here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from uuid import UUID, uuid5

import pytest

from related_images.db import reconciliation_state
from related_images.middleware import InstanceAwareMiddleware, routing
from tests import wsgi
from tests.filters import StubGlance, instance_headers, new_uuid
from tests.middleware.conftest import MakeFilter

ADMIN = wsgi.identity("root", "admins", "admin", "service")
BOUND_TO = "nova"
SEEDED_IMAGE, SEEDED_INSTANCE = "2ee64992-9504-450e-b838-7a6ce8f56e6f", "seeded"
SPACE = UUID("f063c485-160a-479e-9941-1963a7e09500")
UNREGISTERED, REGISTERED, BOUND, SHARED = (str(uuid5(SPACE, name)) for name in "urbs")
TYPES: Final = ("server", "volume")
BINDINGS: Final[dict[str, dict[str, list[str] | None]]] = {
    UNREGISTERED: {},
    REGISTERED: {},
    BOUND: {BOUND_TO: None},
    SHARED: {"other": ["volume", "volume-backup"], BOUND_TO: ["server"]},
}
"""The service users of each installation, with the types on which each may report."""
TARGETS: Final = [
    *((uuid, "server") for uuid in (UNREGISTERED, REGISTERED, BOUND)),
    *((SHARED, resource_type) for resource_type in TYPES),
]


@dataclass(frozen=True)
class Identity:
    """The identity headers of a request; ``None`` is a missing header."""

    status: str | None
    roles: str | None
    user: str | None
    service_status: str | None
    service_roles: str | None
    service_user: str | None

    @property
    def headers(self) -> dict[str, str]:
        named = {
            "X-Identity-Status": self.status,
            "X-Roles": self.roles,
            "X-User-Id": self.user,
            "X-Service-Identity-Status": self.service_status,
            "X-Service-Roles": self.service_roles,
            "X-Service-User-Id": self.service_user,
            "X-Project-Id": "own",
        }
        return {name: text for name, text in named.items() if text is not None}


STATUSES = ("Confirmed", "Invalid", None)
ROLES = (None, "member,reader", "service", "admin", "reader, Service ,admin", "services,admins")
SERVICE_ROLES = (None, "service", "member,SERVICE", "admin")
USERS = (BOUND_TO, "somebody")
IDENTITIES = [
    Identity(*values)
    for values in product(
        STATUSES, ROLES, USERS, STATUSES, SERVICE_ROLES, (BOUND_TO, "other", None)
    )
]

READERS = [who for who in IDENTITIES if (who.user, who.service_user) == ("somebody", "other")]
"""Identities for tests in which the binding to a user does not matter."""


class Oracle:
    """The rules of the design, implemented independently of the code."""

    def __init__(self, who: Identity, require_registered: bool) -> None:
        own = {role.strip().lower() for role in (who.roles or "").split(",")}
        lent = {role.strip().lower() for role in (who.service_roles or "").split(",")}
        self.identified = who.status == "Confirmed"
        self.itself_a_service = self.identified and "service" in own
        self.through_a_service = who.service_status == "Confirmed" and "service" in lent
        self.records = self.itself_a_service or self.through_a_service
        self.admin = self.identified and "admin" in own
        self.sees_all_projects = self.admin or self.records
        self.speaks_as = ({who.user} if self.itself_a_service else set()) | (
            {who.service_user} if self.through_a_service else set()
        )
        self.require_registered = require_registered

    def recording(self, installation: str, resource_type: str) -> tuple[int, str]:
        """Return status and code of recording on a resource; status 0 if it is permitted."""
        if not self.records:
            return 403, "relation.forbidden"
        if self.require_registered and installation == UNREGISTERED:
            return 403, "installation.unregistered"
        users = BINDINGS[installation]
        types = [users[user] for user in self.speaks_as if user in users]
        if users and not any(some is None or resource_type in some for some in types):
            return 403, "installation.bound"
        return 0, ""

    def removing(self, installation: str, resource_type: str) -> tuple[int, str]:
        """Return the same for removing a relation or recording that a resource was deleted."""
        return (0, "") if self.admin else self.recording(installation, resource_type)

    def own_route(self) -> tuple[int, str]:
        return (0, "") if self.identified else (401, "identity.required")


def outcome(answer: Any) -> tuple[int, str]:
    is_error = answer.status >= 400
    return answer.status, answer.json["error"]["code"] if is_error else ""


@pytest.fixture
def require_registered(request: pytest.FixtureRequest) -> bool:
    return bool(getattr(request, "param", False))


registered_or_not = pytest.mark.parametrize(
    "require_registered", [False, True], ids=["any", "registered"], indirect=True
)


@pytest.fixture
def guarded(
    make_filter: MakeFilter, stub_glance: StubGlance, require_registered: bool
) -> InstanceAwareMiddleware:
    """Return a filter with three registered installations and a relation of another project."""
    made = make_filter(stub_glance, require_registered_installation=str(require_registered))
    for uuid in (REGISTERED, BOUND, SHARED):
        users = [{"user_id": user, "resource_types": it} for user, it in BINDINGS[uuid].items()]
        body = {"uuid": uuid, "name": uuid, "service_users": users}
        assert wsgi.call(made, "POST", "/v2/installations", ADMIN, body).status == 201
    sent_headers = ADMIN | instance_headers(REGISTERED, SEEDED_INSTANCE)
    image = {"id": SEEDED_IMAGE, "owner": "theirs"}
    assert wsgi.call(made, "POST", "/v2/images", sent_headers, image).status == 201
    seeded = {"origins": [_without_source(REGISTERED, "server") | {"project_id": "theirs"}]}
    assert wsgi.call(made, "POST", "/v2/origins", ADMIN, seeded).status == 200
    return made


def _without_source(installation: str, resource_type: str) -> dict[str, Any]:
    """Return an origin: the resource comes from no other one."""
    return {
        "installation_uuid": installation,
        "resource_type": resource_type,
        "instance_id": SEEDED_INSTANCE,
        "source": None,
        "since": "2026-01-31T12:00:00Z",
        "project_id": None,
    }


def both() -> Iterator[tuple[Identity, tuple[str, str]]]:
    return product(IDENTITIES, TARGETS)


@registered_or_not
def test_who_may_record_an_image(
    guarded: InstanceAwareMiddleware, stub_glance: StubGlance, require_registered: bool
) -> None:
    for who, target in both():
        stub_glance.created.clear()
        typed = {"X-Resource-Type": target[1]}
        sent_headers = who.headers | instance_headers(target[0], "i") | typed
        answer = wsgi.call(guarded, "POST", "/v2/images", sent_headers, {"name": "n"})
        status, code = Oracle(who, require_registered).recording(*target)
        assert outcome(answer) == (status or 201, code), (who, target)
        assert len(stub_glance.created) == (not status), (who, target)
        assert ("X-Relation-Recorded" in answer.headers) == (not status)
    assert stub_glance.instance_headers_seen() == []


ONE_RELATION: Final = "/v2/images/{image}/relations/{uuid}/none/boot?resource_type={type}"
RECORDING: list[tuple[str, str, dict[str, Any] | None, tuple[int, str]]] = [
    ("POST", "/v2/relations", {"instance_id": "i", "kind": "backup"}, (201, "")),
    ("DELETE", f"{ONE_RELATION}&own_report=creation", None, (404, "relation.not-found")),
]
REMOVING: list[tuple[str, str, dict[str, Any] | None, tuple[int, str]]] = [
    ("DELETE", ONE_RELATION, None, (404, "relation.not-found")),
    (
        "DELETE",
        "/v2/instances/{uuid}/none?resource_type={type}",
        None,
        (404, "instance.not-found"),
    ),
    (
        "DELETE",
        "/v2/origins/{uuid}/none?resource_type={type}&since=2026-01-31T12:00:00Z",
        None,
        (404, "origin.not-found"),
    ),
]


@registered_or_not
@pytest.mark.parametrize(("method", "path", "body", "allowed"), RECORDING + REMOVING)
def test_who_may_attach_detach_remove_and_record_deletions(
    guarded: InstanceAwareMiddleware,
    require_registered: bool,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    allowed: tuple[int, str],
) -> None:
    removed = [(method, path) for method, path, *_ in REMOVING]
    for who, (installation, resource_type) in both():
        asked = path.format(uuid=installation, image=SEEDED_IMAGE, type=resource_type)
        more = {"installation_uuid": installation, "image_id": new_uuid()}
        more["resource_type"] = resource_type
        answer = wsgi.call(guarded, method, asked, who.headers, body and more | body)
        oracle = Oracle(who, require_registered)
        decide = oracle.removing if (method, path) in removed else oracle.recording
        refused = next(
            (it for it in (oracle.own_route(), decide(installation, resource_type)) if it[0]),
            allowed,
        )
        assert outcome(answer) == refused, (who, asked)


@registered_or_not
def test_who_may_record_origins(guarded: InstanceAwareMiddleware, require_registered: bool) -> None:
    for who in IDENTITIES:
        oracle = Oracle(who, require_registered)
        body = {"origins": [_without_source(*target) for target in TARGETS]}
        answer = wsgi.call(guarded, "POST", "/v2/origins", who.headers, body)
        if not oracle.identified or not oracle.records:
            refused = (403, "relation.forbidden") if oracle.identified else oracle.own_route()
            assert outcome(answer) == refused, who
            continue
        for target, one in zip(TARGETS, answer.json["origins"], strict=True):
            status, code = oracle.recording(*target)
            if status:
                assert (one["status"], one["error"]["code"]) == (status, code), who
            else:
                assert one["status"] in (200, 201), who


@registered_or_not
def test_who_may_send_heartbeats(
    guarded: InstanceAwareMiddleware, require_registered: bool
) -> None:
    witnesses = {"server": "nova-bus", "volume": "cinder-api"}
    times = {"from": "2026-01-31T12:00:00Z", "until": "2026-01-31T12:01:00Z"}
    for who, (installation, resource_type) in both():
        body = {"installation_uuid": installation, "process": "p", **times}
        body["witness"] = witnesses[resource_type]
        answer = wsgi.call(guarded, "POST", "/v2/witnesses", who.headers, body)
        oracle = Oracle(who, require_registered)
        checks = (oracle.own_route(), oracle.recording(installation, resource_type))
        refused = next((it for it in checks if it[0]), (200, ""))
        assert outcome(answer) == refused, (who, body)


ADMINISTRATING = [
    ("GET", "/v2/installations", None, (200, "")),
    ("POST", "/v2/installations", {"uuid": REGISTERED, "name": REGISTERED}, (200, "")),
    ("DELETE", f"/v2/installations/{UNREGISTERED}", None, (404, "installation.not-found")),
    ("GET", "/v2/resource-types", None, (200, "")),
    ("POST", "/v2/resource-types", {"name": "server"}, (400, "body.field-invalid")),
    ("DELETE", "/v2/resource-types/stack", None, (404, "resource-type.not-found")),
]


@pytest.mark.parametrize(("method", "path", "body", "allowed"), ADMINISTRATING)
def test_who_may_administrate_installations_and_types(
    guarded: InstanceAwareMiddleware, method: str, path: str, body: Any, allowed: tuple[int, str]
) -> None:
    for who in READERS:
        oracle = Oracle(who, False)
        expected = allowed if oracle.admin else (403, "admin.required")
        answer = wsgi.call(guarded, method, path, who.headers, body)
        assert outcome(answer) == (expected if oracle.identified else oracle.own_route()), who


READING = [
    ("/v2/relations", "relations"),
    (f"/v2/relations?image_id={SEEDED_IMAGE}", "relations"),
    ("/v2/relations?project_id=theirs", "relations"),
    (f"/v2/images/{SEEDED_IMAGE}/relations", "relations"),
    ("/v2/instances", "instances"),
    (f"/v2/instances?instance_id={SEEDED_INSTANCE}", "instances"),
    ("/v2/origins", "origins"),
]


@pytest.mark.parametrize(("path", "key"), READING)
def test_who_sees_relations_of_another_project(
    guarded: InstanceAwareMiddleware, path: str, key: str
) -> None:
    for who in READERS:
        oracle = Oracle(who, False)
        answer = wsgi.call(guarded, "GET", path, who.headers)
        assert outcome(answer) == ((200, "") if oracle.identified else oracle.own_route()), who
        if oracle.identified:
            assert len(answer.json[key]) == oracle.sees_all_projects, who


def test_who_sees_a_server_of_another_project(guarded: InstanceAwareMiddleware) -> None:
    for who in READERS:
        oracle = Oracle(who, False)
        expected = (200, "") if oracle.sees_all_projects else (404, "instance.not-found")
        path = f"/v2/instances/{REGISTERED}/{SEEDED_INSTANCE}"
        answer = wsgi.call(guarded, "GET", path, who.headers)
        assert outcome(answer) == (expected if oracle.identified else oracle.own_route()), who


OPEN = [
    f"/v2/images/{SEEDED_IMAGE}/ancestry",
    f"/v2/images/{SEEDED_IMAGE}/descendants",
    f"/v2/images/{SEEDED_IMAGE}/dependents",
    f"/v2/images/{SEEDED_IMAGE}/dependents/summary",
    f"/v2/images/{SEEDED_IMAGE}/dependents/summary?group_by=project",
    f"/v2/usages?image_ids={SEEDED_IMAGE}",
    "/v2/info/relations",
    *(f"/v2/schemas/{name}" for name in ("relation", "relations", "instance", "instances")),
    "/v2/schemas/openapi-relations",
]


@pytest.mark.parametrize("path", OPEN)
def test_routes_for_every_identified_caller(guarded: InstanceAwareMiddleware, path: str) -> None:
    for who in READERS:
        oracle = Oracle(who, False)
        answer = wsgi.call(guarded, "GET", path, who.headers)
        assert outcome(answer) == ((200, "") if oracle.identified else oracle.own_route()), who


def test_unreconciled_count_is_shown_to_callers_who_see_all_projects(
    guarded: InstanceAwareMiddleware,
) -> None:
    for who in READERS:
        oracle = Oracle(who, False)
        if oracle.identified:
            info = wsgi.call(guarded, "GET", "/v2/info/relations", who.headers).json
            assert (info["unreconciled"] is not None) == oracle.sees_all_projects, who


def test_unreconciled_is_not_counted_for_other_callers(
    guarded: InstanceAwareMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wsgi.call(guarded, "GET", "/v2/info/relations", ADMIN)
    assert asked.json["unreconciled"] > 0
    monkeypatch.delattr(reconciliation_state, "_count_since")
    member = wsgi.identity("alice", "demo", "member")
    assert wsgi.call(guarded, "GET", "/v2/info/relations", member).json["unreconciled"] is None


def test_usages_report_whether_all_projects_are_counted(guarded: InstanceAwareMiddleware) -> None:
    body = {"installation_uuid": REGISTERED, "image_id": SEEDED_IMAGE, "instance_id": "started"}
    more = {"kind": "boot", "instance_project_id": "theirs"}
    assert wsgi.call(guarded, "POST", "/v2/relations", ADMIN, body | more).status == 201
    for who in READERS:
        oracle = Oracle(who, False)
        if oracle.identified:
            path, ids = f"/v2/usages?image_ids={SEEDED_IMAGE}", {"image_ids": [SEEDED_IMAGE]}
            answer = wsgi.call(guarded, "GET", path, who.headers).json
            assert wsgi.call(guarded, "POST", "/v2/usages", who.headers, ids).json == answer
            assert answer["all_projects"] is oracle.sees_all_projects, who
            assert answer["usages"][0]["instances"] == oracle.sees_all_projects, who


def test_who_sees_dependents_of_another_project(guarded: InstanceAwareMiddleware) -> None:
    body = {"installation_uuid": REGISTERED, "image_id": SEEDED_IMAGE, "instance_id": "started"}
    more = {"kind": "boot", "instance_project_id": "theirs"}
    assert wsgi.call(guarded, "POST", "/v2/relations", ADMIN, body | more).status == 201
    path = f"/v2/images/{SEEDED_IMAGE}/dependents"
    for who in READERS:
        oracle = Oracle(who, False)
        if oracle.identified:
            seen = oracle.sees_all_projects
            found = wsgi.call(guarded, "GET", path, who.headers).json["dependents"]
            assert [one["project_id"] for one in found] == ["theirs"] * seen, who
            summary = wsgi.call(guarded, "GET", f"{path}/summary", who.headers).json
            counts = {"live": 1, "ended": 0, "direct": 1, "indirect": 0}
            assert summary["by_type"] == ({"server": counts} if seen else {}), who
            assert (summary["projects"], summary["all_projects"]) == (int(seen), seen), who
            grouped = f"{path}/summary?group_by=project"
            rows = wsgi.call(guarded, "GET", grouped, who.headers).json["projects"]
            assert [row["project_id"] for row in rows] == ["theirs"] * seen, who


@pytest.mark.parametrize("owner", ["own", "theirs"])
def test_who_learns_the_dependents_from_a_refused_deletion(
    make_filter: MakeFilter, owner: str
) -> None:
    """The refusal has what the route for the summary shows to the same caller, and no more."""
    made = make_filter(StubGlance(owner), guard="in-use")
    body = {"installation_uuid": UNREGISTERED, "image_id": SEEDED_IMAGE, "instance_id": "started"}
    more = {"kind": "boot", "instance_project_id": "theirs"}
    assert wsgi.call(made, "POST", "/v2/relations", ADMIN, body | more).status == 201
    for who in READERS:
        oracle = Oracle(who, False)
        answer = wsgi.call(made, "DELETE", f"/v2/images/{SEEDED_IMAGE}", who.headers)
        if oracle.identified and owner == "theirs" and not oracle.admin:
            assert answer.status == 204, who
            again = wsgi.call(made, "POST", "/v2/relations", ADMIN, body | more)
            assert again.status == 200  # recorded again: the stub has deleted nothing
            continue
        refused = answer.json["error"]
        assert refused["code"] == "image.in-use", who
        assert ("theirs" in answer.body.decode()) is False, who
        assert ("started" in refused["message"]) == oracle.sees_all_projects, who
        path = f"/v2/images/{SEEDED_IMAGE}/dependents/summary"
        summary = wsgi.call(made, "GET", path, who.headers)
        shown = summary.json if oracle.identified else None
        assert refused.get("dependents") == shown, who
        if shown is not None:
            assert bool(shown["by_type"]) == oracle.sees_all_projects, who


def test_every_caller_may_list_with_instance_headers(guarded: InstanceAwareMiddleware) -> None:
    for who in READERS:
        sent_headers = who.headers | instance_headers(REGISTERED, SEEDED_INSTANCE)
        answer = wsgi.call(guarded, "GET", "/v2/images", sent_headers)
        assert outcome(answer) == (200, "")


def test_every_route_is_covered() -> None:
    asked = {
        *((method, path) for method, path, *_ in RECORDING + REMOVING + ADMINISTRATING),
        *(("GET", path) for path, _ in READING),
        *(("GET", path) for path in OPEN),
        ("POST", "/v2/origins"),
        ("POST", "/v2/usages"),
        ("POST", "/v2/witnesses"),
        ("GET", f"/v2/instances/{REGISTERED}/{SEEDED_INSTANCE}"),
    }
    paths = {
        (method, path.format(uuid=REGISTERED, image=SEEDED_IMAGE, type="server").split("?")[0][3:])
        for method, path in asked
    }
    routes = [(method, routing.match(path, method)) for method, path in paths]
    for template, methods in routing.ROUTES.items():
        for method, operation in methods.items():
            assert any(
                method == other and found and found.operation is operation
                for other, found in routes
            ), (method, template)
