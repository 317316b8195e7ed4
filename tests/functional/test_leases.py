"""Leases through the real Glance: the routes, the errors, who sees what, and the guard."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests import wsgi
from tests.filters import filtering, migrated, new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, a_project, service_for, user_of
from tests.servers import Answer

STACK = "stack"


def in_days(number: float) -> str:
    return (datetime.now(UTC) + timedelta(days=number)).isoformat()


@pytest.fixture(scope="module")
def heat(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """A cloud with the registered type ``stack``, and with delete protection for both actions."""
    store = migrated(tmp_path_factory.mktemp("leases"))
    options = {"guard": "in-use", "guard_actions": "delete, deactivate"}
    made = Cloud(filtering(cloud.bare, store, **options), cloud.bare)
    answer = made.call("POST", "/v2/resource-types", ADMIN, {"name": STACK})
    assert answer.status == 201
    return made


class Stacks:
    """The stacks of a project, and an image of the project."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.installation, self.project = cloud, new_uuid(), a_project()
        self.user, self.service = user_of(self.project), service_for(self.project)
        self.image = self.create()

    def create(self, **fields: Any) -> str:
        answer = self.cloud.call("POST", "/v2/images", self.user, {"name": "base"} | fields)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def lease(self, stack: str = "stack-1", **more: Any) -> dict[str, Any]:
        body = {
            "installation_uuid": self.installation,
            "resource_type": STACK,
            "instance_id": stack,
            "image_id": self.image,
            "kind": "use",
            "expires_at": in_days(7),
        }
        return {name: value for name, value in (body | more).items() if value is not None}

    def attach(self, *given: Any, headers: Any = None, **more: Any) -> Answer:
        body = self.lease(*given, **more)
        return self.cloud.call("POST", "/v2/relations", headers or self.service, body)

    def hold(self, *given: Any, **more: Any) -> Any:
        answer = self.attach(*given, **more)
        assert answer.status in (200, 201), answer.body
        return answer.json

    def get(self, path: str, headers: Mapping[str, str], **query: str) -> Any:
        answer = self.cloud.call("GET", f"{path}?{urlencode(query)}", headers)
        assert answer.status == 200, answer.body
        return answer.json

    def relations(self, headers: Mapping[str, str], **query: str) -> list[str]:
        found = self.get("/v2/relations", headers, installation_uuid=self.installation, **query)
        return [row["instance_id"] for row in found["relations"]]

    def usage(self, headers: Mapping[str, str]) -> Any:
        (row,) = self.get("/v2/usages", headers, image_ids=self.image)["usages"]
        return row

    def delete(self, headers: Mapping[str, str]) -> Answer:
        return self.cloud.call("DELETE", f"/v2/images/{self.image}", headers)

    def deactivate(self, headers: Mapping[str, str], **more: Any) -> Answer:
        path = f"/v2/images/{self.image}/actions/deactivate{more.pop('query', '')}"
        return self.cloud.call(more.pop("method", "POST"), path, headers)

    @property
    def status(self) -> str:
        shown = wsgi.call(self.cloud.bare, "GET", f"/v2/images/{self.image}", ADMIN)
        return str(shown.json["status"])

    def detach(self, headers: Mapping[str, str], stack: str = "stack-1") -> int:
        path = f"/v2/images/{self.image}/relations/{self.installation}/{stack}/use"
        return self.cloud.call("DELETE", f"{path}?resource_type={STACK}", headers).status


@pytest.fixture
def stacks(heat: Cloud) -> Stacks:
    return Stacks(heat)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


def test_a_lease_is_recorded_extended_and_listed(stacks: Stacks) -> None:
    first = stacks.attach(expires_at="2020-01-01")
    assert code(first) == (400, "body.field-invalid")
    answer = stacks.attach(label="web")
    assert answer.status == 201
    row = answer.json
    assert (row["kind"], row["resource_type"], row["label"]) == ("use", STACK, "web")
    assert (row["project_id"], row["source"]) == (stacks.project, "service")
    assert row["self"].endswith(f"/{stacks.installation}/stack-1/use?resource_type=stack")
    shorter = stacks.attach(label="web", expires_at=in_days(1))
    assert (shorter.status, shorter.json) == (200, row)
    longer = stacks.attach(label="web", expires_at=in_days(9))
    assert longer.json["expires_at"] > row["expires_at"]
    (listed,) = stacks.get("/v2/relations", stacks.user, kind="use")["relations"]
    assert listed == longer.json
    assert code(stacks.attach(label="other")) == (409, "relation.conflict")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"expires_at": None}, "body.field-invalid"),
        ({"expires_at": "soon"}, "body.field-invalid"),
        ({"expires_at": 7}, "body.field-invalid"),
        ({"expires_at": in_days(31)}, "body.field-invalid"),
        ({"kind": "boot"}, "resource-type.unknown"),
        ({"kind": "boot", "resource_type": "server"}, "body.field-invalid"),
        ({"resource_type": "server"}, "resource-type.unknown"),
        ({"resource_type": None}, "resource-type.unknown"),
        ({"resource_type": "cluster"}, "resource-type.unknown"),
        ({"resource_type": "a b"}, "resource-type.unknown"),
        ({"kind": "lease"}, "kind.unknown"),
    ],
)
def test_a_malformed_lease_is_refused(stacks: Stacks, more: Any, expected: str) -> None:
    assert code(stacks.attach(**more)) == (400, expected)
    assert stacks.relations(ADMIN) == []


def test_the_message_names_what_is_allowed(stacks: Stacks) -> None:
    message = stacks.attach(resource_type="cluster").json["error"]["message"]
    assert "cluster is not registered for leases; registered are: stack; " in message
    message = stacks.attach(expires_at=in_days(31)).json["error"]["message"]
    assert "ends at most 30 days later" in message


def test_a_user_with_a_recording_role_names_the_project(stacks: Stacks) -> None:
    recorder = wsgi.identity("heat", stacks.project, "member,reader,service")
    assert code(stacks.attach(headers=recorder)) == (400, "body.field-invalid")
    owner = a_project()
    row = stacks.hold(headers=recorder, instance_project_id=owner)
    assert row["project_id"] == owner


def test_recording_needs_a_role_and_an_image_that_the_caller_sees(stacks: Stacks) -> None:
    for headers in (stacks.user, ADMIN):
        assert code(stacks.attach(headers=headers)) == (403, "relation.forbidden")
    stacks.hold()
    stranger = Stacks(stacks.cloud)
    assert code(stacks.attach(headers=stranger.service)) == (404, "image.not-found")
    assert code(stacks.attach(image_id=new_uuid())) == (404, "image.not-found")


def test_an_installation_is_bound_for_a_registered_type(stacks: Stacks) -> None:
    users = [{"user_id": "heat", "resource_types": [STACK, "server"]}]
    body = {"uuid": stacks.installation, "name": "east", "service_users": users}
    wrong = body | {"service_users": [{"user_id": "heat", "resource_types": ["cluster"]}]}
    refused = stacks.cloud.call("POST", "/v2/installations", ADMIN, wrong)
    assert code(refused) == (400, "resource-type.unknown")
    registered = stacks.cloud.call("POST", "/v2/installations", ADMIN, body)
    assert registered.json["service_users"][0]["resource_types"] == ["server", STACK]
    assert code(stacks.attach()) == (403, "installation.bound")
    heat = stacks.user | SERVICE_TOKEN | {"X-Service-User-Id": "heat"}
    assert stacks.attach(headers=heat).status == 201


def test_only_an_administrator_registers_types(stacks: Stacks) -> None:
    call = stacks.cloud.call
    name = f"type-{new_uuid()}"
    for headers in (stacks.user, stacks.service):
        for method, path, body in (
            ("GET", "/v2/resource-types", None),
            ("POST", "/v2/resource-types", {"name": name}),
            ("DELETE", f"/v2/resource-types/{name}", None),
        ):
            assert code(call(method, path, headers, body)) == (403, "admin.required")
    made = call("POST", "/v2/resource-types", ADMIN, {"name": name, "longest_lease_days": 2})
    assert (made.status, made.json["longest_lease_days"]) == (201, 2)
    again = call("POST", "/v2/resource-types", ADMIN, {"name": name, "longest_lease_days": 2})
    assert (again.status, again.json) == (200, made.json)
    other = call("POST", "/v2/resource-types", ADMIN, {"name": name})
    assert code(other) == (409, "resource-type.conflict")
    listed = call("GET", "/v2/resource-types", ADMIN).json["resource_types"]
    assert made.json in listed
    assert call("GET", "/v2/info/relations", stacks.user).json["lease_types"] == listed
    stacks.hold(resource_type=name, expires_at=in_days(1))
    removal = ("DELETE", f"/v2/resource-types/{name}", ADMIN)
    assert code(call(*removal)) == (409, "resource-type.in-use")
    path = f"/v2/instances/{stacks.installation}/stack-1?resource_type={name}"
    assert call("DELETE", path, ADMIN).status == 204
    assert call(*removal).status == 204
    assert code(call(*removal)) == (404, "resource-type.not-found")


@pytest.mark.parametrize(
    "body",
    [{}, {"name": 7}, {"name": "a b"}, {"name": "server"}, {"name": "s", "longest_lease_days": 0},
     {"name": "s", "longest_lease_days": 367}, {"name": "s", "longest_lease_days": [1]},
     {"name": "s", "colour": "red"}],
)  # fmt: skip
def test_a_malformed_type_is_refused(heat: Cloud, body: Any) -> None:
    assert heat.call("POST", "/v2/resource-types", ADMIN, body).status == 400


def test_a_list_has_one_result_for_each_item(stacks: Stacks) -> None:
    items = [
        stacks.lease("stack-1"),
        stacks.lease("stack-2", image_id=new_uuid()),
        stacks.lease("stack-3", resource_type="cluster"),
        "text",
        stacks.lease("stack-4", kind="snapshot", resource_type=None, expires_at=None),
        stacks.lease("stack-1", expires_at=in_days(8)),
    ]
    answer = stacks.cloud.call("POST", "/v2/relations", stacks.service, {"relations": items})
    assert answer.status == 200
    results = answer.json["relations"]
    assert [one["status"] for one in results] == [201, 404, 400, 400, 201, 200]
    assert [one["error"]["code"] for one in results if "error" in one] == [
        *("image.not-found", "resource-type.unknown", "body.field-invalid"),
    ]
    assert results[5]["relation"]["expires_at"] > results[0]["relation"]["expires_at"]
    assert sorted(stacks.relations(ADMIN)) == ["stack-1", "stack-4"]
    bodies: list[dict[str, Any]] = [
        {"relations": []},
        {"relations": items[:1] * 101},
        {"relations": {}},
        {"relations": items, "kind": "use"},
    ]
    for body in bodies:
        refused = stacks.cloud.call("POST", "/v2/relations", stacks.service, body)
        assert code(refused) == (400, "body.field-invalid")


def test_a_project_sees_the_leases_of_its_own_resources(stacks: Stacks) -> None:
    theirs = a_project()
    stacks.hold()
    stacks.hold("stack-2", instance_project_id=theirs)
    assert stacks.relations(stacks.user) == ["stack-1"]
    assert stacks.relations(user_of(theirs)) == ["stack-2"]
    assert stacks.relations(user_of(a_project())) == []
    assert stacks.relations(ADMIN, in_use="true") == ["stack-2", "stack-1"]
    assert stacks.relations(ADMIN, resource_type=STACK) == ["stack-2", "stack-1"]
    assert stacks.relations(ADMIN, resource_type="unheard-of") == []
    assert stacks.relations(stacks.user, in_use="false") == []
    of_image = f"/v2/images/{stacks.image}/relations"
    assert len(stacks.get(of_image, stacks.user)["relations"]) == 1
    path = f"/v2/instances/{stacks.installation}/stack-1"
    shown = stacks.get(path, stacks.user, resource_type=STACK)
    assert shown["images"]["use"]["latest_image_id"] == stacks.image
    assert stacks.cloud.call("GET", path, stacks.user).status == 404


def test_the_owner_learns_the_number_and_the_latest_end(stacks: Stacks) -> None:
    other = a_project()
    last = stacks.hold("stack-2", instance_project_id=other, expires_at=in_days(9))["expires_at"]
    own = stacks.hold()["expires_at"]
    for headers in (stacks.user, ADMIN):
        row = stacks.usage(headers)
        assert row["leases"] == {"count": 2, "latest_expires_at": last}
        assert (row["live_instances"], row["used_by_others"]) == (0, True)
    assert stacks.usage(user_of(other))["leases"] == {"count": 1, "latest_expires_at": last}
    nobody = stacks.usage(user_of(a_project()))
    assert nobody["leases"] == {"count": 0, "latest_expires_at": None}
    assert nobody["used_by_others"] is False
    assert stacks.detach(ADMIN, "stack-2") == 204
    assert stacks.usage(stacks.user)["leases"] == {"count": 1, "latest_expires_at": own}
    assert stacks.usage(stacks.user)["used_by_others"] is False


def test_images_are_listed_by_lease(stacks: Stacks) -> None:
    stacks.hold()
    stacks.create()

    def listed(**query: str) -> list[str]:
        query = {"installation_uuid": stacks.installation, "instance_id": "stack-1", **query}
        return stacks.cloud.image_ids(stacks.user, **query)

    of_stack = {"relation_resource_type": STACK}
    assert listed(**of_stack, relation_kind="use") == [stacks.image]
    assert listed(**of_stack) == listed(relation_kind="use") == []
    assert listed(relation_resource_type="unheard-of") == []


@pytest.mark.parametrize(
    "more", [{"X-Resource-Type": STACK}, {"X-Relation-Kind": "use"}], ids=["type", "kind"]
)
def test_no_image_is_created_of_a_stack(stacks: Stacks, more: dict[str, str]) -> None:
    headers = {"X-Installation-UUID": stacks.installation, "X-Instance-ID": "stack-1", **more}
    answer = stacks.cloud.call("POST", "/v2/images", stacks.service | headers, {"name": "n"})
    assert answer.status == 400
    assert stacks.cloud.total(stacks.project) == 1


def test_a_stack_has_no_origin(stacks: Stacks) -> None:
    origin = {
        "installation_uuid": stacks.installation,
        "resource_type": STACK,
        "instance_id": "stack-1",
        "source": None,
        "since": in_days(0),
        "project_id": None,
    }
    answer = stacks.cloud.call("POST", "/v2/origins", stacks.service, {"origins": [origin]})
    (result,) = answer.json["origins"]
    assert (result["status"], result["error"]["code"]) == (400, "resource-type.unknown")


def test_a_leased_image_is_not_deleted(stacks: Stacks) -> None:
    stacks.hold()
    stacks.hold("stack-2", instance_project_id=a_project())
    refused = stacks.delete(stacks.user)
    assert code(refused) == (409, "image.in-use")
    message = refused.json["error"]["message"]
    assert f"1 live stack (stack-1 of {stacks.installation}) and live resources of other" in message
    assert "stack-2" not in message
    assert stacks.detach(stacks.user) == 403
    assert stacks.detach(stacks.service) == stacks.detach(ADMIN, "stack-2") == 204
    assert stacks.delete(stacks.user).status == 204
    assert code(stacks.attach()) == (404, "image.not-found")


def test_a_recorded_deletion_ends_the_leases(stacks: Stacks) -> None:
    stacks.hold()
    path = f"/v2/instances/{stacks.installation}/stack-1?resource_type={STACK}"
    assert stacks.cloud.call("DELETE", path, stacks.service).status == 204
    assert stacks.relations(ADMIN, in_use="true") == []
    assert code(stacks.attach()) == (409, "instance.ended")
    assert stacks.delete(stacks.user).status == 204


def activated(stacks: Stacks) -> str:
    """Return the ID of the image after data was uploaded, since only then it can be deactivated."""
    stacks.image = stacks.create(disk_format="raw", container_format="bare")
    stacks.cloud.upload(stacks.image, stacks.user)
    return stacks.image


def test_a_user_does_not_deactivate_an_image_in_use(stacks: Stacks) -> None:
    activated(stacks)
    stacks.hold()
    refused = stacks.deactivate(stacks.user)
    assert code(refused) == (409, "image.in-use")
    assert "cannot be deactivated: it is used by 1 live stack (" in refused.json["error"]["message"]
    for query, method in (("?_method=POST", "GET"), ("?_method=POST", "PUT"), ("?a=1", "POST")):
        assert stacks.deactivate(stacks.user, query=query, method=method).status == 409
    assert stacks.status == "active"
    stacks.hold("stack-2")  # the refused request prevents no lease
    for stack in ("stack-1", "stack-2"):
        assert stacks.detach(ADMIN, stack) == 204
    assert stacks.deactivate(stacks.user).status == 204
    assert stacks.status == "deactivated"


def test_an_administrator_deactivates_and_the_dependents_are_logged(
    stacks: Stacks, caplog: pytest.LogCaptureFixture
) -> None:
    activated(stacks)
    stacks.hold()
    with caplog.at_level(logging.INFO):
        assert stacks.deactivate(ADMIN).status == 204
    (line,) = [line for line in caplog.messages if "is deactivated by user" in line]
    assert f"image {stacks.image} is deactivated by user admin of project admin-project" in line
    assert "; 1 live resources use it [" in line
    assert stacks.status == "deactivated"


def test_a_stranger_learns_nothing_from_a_deactivation(stacks: Stacks) -> None:
    stacks.image = activated(stacks)
    stranger = user_of(a_project())
    without = stacks.deactivate(stranger)
    stacks.hold()
    assert (stacks.deactivate(stranger).status, without.status) == (404, 404)


def test_a_deactivation_is_not_guarded_by_default(cloud: Cloud, tmp_path: Any) -> None:
    plain = Cloud(filtering(cloud.bare, migrated(tmp_path), guard="in-use"), cloud.bare)
    stacks = Stacks(plain)
    assert plain.call("POST", "/v2/resource-types", ADMIN, {"name": STACK}).status == 201
    activated(stacks)
    stacks.hold()
    assert stacks.deactivate(stacks.user).status == 204
    assert stacks.delete(stacks.user).status == 409
    info = plain.call("GET", "/v2/info/relations", ADMIN).json
    assert info["guard_counts"] == ["lease", "server", "shelved", "volume"]
    assert info["guard_actions"] == ["delete"]


def test_the_guard_counts_what_is_configured(cloud: Cloud, tmp_path: Any) -> None:
    options = {"guard": "in-use", "guard_counts": "server, volume"}
    stacks = Stacks(Cloud(filtering(cloud.bare, migrated(tmp_path), **options), cloud.bare))
    stacks.cloud.call("POST", "/v2/resource-types", ADMIN, {"name": STACK})
    stacks.hold()
    assert stacks.delete(stacks.user).status == 204


def test_a_deactivation_passes_while_the_database_is_down(cloud: Cloud, tmp_path: Any) -> None:
    options = {"guard": "in-use", "guard_actions": "deactivate", "database_timeout": "0.2"}
    nowhere = f"sqlite:///{tmp_path}/none/none.db"
    stacks = Stacks(Cloud(filtering(cloud.bare, nowhere, **options), cloud.bare))
    activated(stacks)
    assert stacks.deactivate(stacks.user).status == 204
