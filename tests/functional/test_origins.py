"""Origins through the real Glance: recording, errors, visibility, pages, and what follows."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.filters import filtering, migrated, new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, a_project, service_for, user_of

SINCE = "2026-01-31T02:00:00.000000Z"


class Volumes:
    """The resources of one installation and one project."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.installation, self.project = cloud, new_uuid(), a_project()
        self.user, self.service = user_of(self.project), service_for(self.project)

    def ref(self, name: str, type: str = "volume") -> dict[str, str]:
        return {
            "installation_uuid": self.installation,
            "instance_id": name,
            "resource_type": type,
        }

    def origin(self, ref: Any, source: Any, since: str = SINCE, **more: Any) -> dict[str, Any]:
        return {**ref, "source": source, "since": since, "project_id": self.project, **more}

    def send(self, *origins: Any, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        body = {"origins": origins}
        answer = self.cloud.call("POST", "/v2/origins", headers or self.service, body)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json["origins"]
        assert len(found) == len(origins)
        return found

    def list(self, headers: Mapping[str, str], **query: str) -> list[dict[str, Any]]:
        query = {"installation_uuid": self.installation, **query}
        answer = self.cloud.call("GET", f"/v2/origins?{urlencode(query)}", headers)
        assert answer.status == 200, answer.body
        found: list[dict[str, Any]] = answer.json["origins"]
        return found

    def attach(self, ref: Mapping[str, str], image_id: str, kind: str = "boot") -> None:
        body = {**ref, "image_id": image_id, "kind": kind, "instance_project_id": self.project}
        assert self.cloud.call("POST", "/v2/relations", self.service, body).status == 201

    def image(self) -> str:
        answer = self.cloud.call("POST", "/v2/images", self.user, {"name": "n"})
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def remove(
        self, ref: Mapping[str, str], since: str, headers: Mapping[str, str] | None = None
    ) -> Any:
        path = f"/v2/origins/{ref['installation_uuid']}/{ref['instance_id']}"
        query = urlencode({"resource_type": ref["resource_type"], "since": since})
        return self.cloud.call("DELETE", f"{path}?{query}", headers or self.service)

    def end(self, ref: Mapping[str, str]) -> None:
        path = f"/v2/instances/{self.installation}/{ref['instance_id']}"
        answer = self.cloud.call(
            "DELETE", f"{path}?resource_type={ref['resource_type']}", self.service
        )
        assert answer.status == 204


@pytest.fixture
def volumes(cloud: Cloud) -> Volumes:
    return Volumes(cloud)


def test_origins_are_recorded_once_and_listed(volumes: Volumes) -> None:
    cloned = volumes.origin(volumes.ref("v-2"), volumes.ref("v-1"))
    blank = volumes.origin(volumes.ref("v-1"), None, "2026-01-31T01:00:00Z")
    results = volumes.send(cloned, blank)
    assert [one["status"] for one in results] == [201, 201]
    assert results[0]["origin"] == {**cloned, "has_source": True, "reported_by": "service"}
    assert results[1]["origin"] == {
        **blank,
        "since": "2026-01-31T01:00:00.000000Z",
        "has_source": False,
        "reported_by": "service",
    }
    again = volumes.send(blank, cloned)
    assert again == [results[1] | {"status": 200}, results[0] | {"status": 200}]
    assert volumes.list(volumes.user) == [one["origin"] for one in results]
    assert volumes.list(ADMIN) == [one["origin"] for one in results]


def test_every_allowed_combination_is_recorded_and_no_other(volumes: Volumes) -> None:
    types = ["server", "volume", "volume-snapshot", "volume-backup"]
    pairs = [(one, other) for one in types for other in types]
    results = volumes.send(
        *(
            volumes.origin(volumes.ref(f"{one}-of-{other}", one), volumes.ref("source", other))
            for one, other in pairs
        )
    )
    allowed = {pair for pair, one in zip(pairs, results, strict=True) if one["status"] == 201}
    assert allowed == {
        ("server", "volume"),
        ("volume", "volume"),
        ("volume", "volume-snapshot"),
        ("volume", "volume-backup"),
        ("volume-snapshot", "volume"),
        ("volume-backup", "volume"),
    }
    refused = [one for one in results if one["status"] != 201]
    assert {(one["status"], one["error"]["code"]) for one in refused} == {(400, "origin.refused")}
    assert refused[0]["error"]["message"] == (
        "a server cannot come from a server; allowed are: a server from a volume; a volume from a "
        "volume or a volume-snapshot or a volume-backup; a volume-snapshot from a volume; a "
        "volume-backup from a volume"
    )


def test_a_malformed_item_does_not_affect_the_others(volumes: Volumes) -> None:
    good = [volumes.origin(volumes.ref(f"v-{n}"), None) for n in range(2)]
    ref, other = volumes.ref("v-9"), volumes.ref("v-8")
    bad: list[tuple[Any, str]] = [
        ("text", "body.field-invalid"),
        ({}, "body.field-invalid"),
        (volumes.origin(ref, ref), "origin.refused"),
        (volumes.origin(ref, "text"), "body.field-invalid"),
        (volumes.origin(ref, {"instance_id": "x"}), "body.field-invalid"),
        (volumes.origin(ref, other, since="yesterday"), "body.field-invalid"),
        (volumes.origin(ref, other, project_id=" "), "body.field-invalid"),
        (volumes.origin(ref, other, colour="red"), "body.field-invalid"),
        (volumes.origin(ref | {"instance_id": "a b"}, other), "tuple.malformed"),
        (volumes.origin(ref | {"installation_uuid": "a"}, other), "tuple.malformed"),
        (volumes.origin(ref | {"resource_type": "stack"}, other), "resource-type.unknown"),
        (volumes.origin(ref, volumes.ref("s", "stack")), "resource-type.unknown"),
    ]
    results = volumes.send(good[0], *(item for item, _ in bad), good[1])
    assert [one["status"] for one in results] == [201, *[400] * len(bad), 201]
    assert [one["error"]["code"] for one in results[1:-1]] == [code for _, code in bad]
    assert all(set(one["error"]) == {"code", "title", "message"} for one in results[1:-1])
    assert {one["instance_id"] for one in volumes.list(ADMIN)} == {"v-0", "v-1"}


def test_another_source_since_the_same_time_is_a_conflict(volumes: Volumes) -> None:
    ref = volumes.ref("s-1", "server")
    first, second = (volumes.origin(ref, volumes.ref(name)) for name in ("v-1", "v-2"))
    later = volumes.origin(ref, volumes.ref("v-2"), "2026-02-01T00:00:00.000000Z")
    results = volumes.send(first, second, later)
    assert [one["status"] for one in results] == [201, 409, 201]
    assert results[1]["error"]["code"] == "origin.conflict"
    sources = [one["source"]["instance_id"] for one in volumes.list(ADMIN)]
    assert sources == ["v-2", "v-1"]


@pytest.mark.parametrize(
    "body", [{}, {"origins": []}, {"origins": {}}, {"origins": [1] * 101}, {"origins": [], "a": 1}]
)
def test_a_body_without_a_list_of_origins_is_refused(volumes: Volumes, body: Any) -> None:
    answer = volumes.cloud.call("POST", "/v2/origins", volumes.service, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "body.field-invalid")


def test_recording_needs_the_role_and_the_bound_service_user(volumes: Volumes) -> None:
    body = {"origins": [volumes.origin(volumes.ref("v-1"), None)]}
    for headers in (volumes.user, ADMIN):
        answer = volumes.cloud.call("POST", "/v2/origins", headers, body)
        assert (answer.status, answer.json["error"]["code"]) == (403, "relation.forbidden")
    users = [
        {"user_id": "cinder", "resource_types": ["volume"]},
        {"user_id": "nova", "resource_types": ["server"]},
    ]
    bound = {"uuid": volumes.installation, "name": "cinder", "service_users": users}
    assert volumes.cloud.call("POST", "/v2/installations", ADMIN, bound).status == 201
    (refused,) = volumes.send(*body["origins"])
    assert (refused["status"], refused["error"]["code"]) == (403, "installation.bound")
    cinder = volumes.user | SERVICE_TOKEN | {"X-Service-User-Id": "cinder"}
    (done,) = volumes.send(*body["origins"], headers=cinder)
    assert done["status"] == 201


def test_a_project_sees_the_origins_of_its_own_resources(volumes: Volumes) -> None:
    other = a_project()
    volumes.send(
        volumes.origin(volumes.ref("v-1"), None),
        volumes.origin(volumes.ref("v-2"), volumes.ref("v-1"), project_id=other),
        volumes.origin(volumes.ref("v-3"), volumes.ref("v-2")),
        volumes.origin(volumes.ref("v-4"), volumes.ref("unknown")),
    )
    mine = {one["instance_id"]: one for one in volumes.list(volumes.user)}
    assert {name: (one["has_source"], one["source"]) for name, one in mine.items()} == {
        "v-1": (False, None),
        "v-3": (True, None),
        "v-4": (True, None),
    }
    (theirs,) = volumes.list(user_of(other))
    assert (theirs["instance_id"], theirs["has_source"], theirs["source"]) == ("v-2", True, None)
    assert len(volumes.list(ADMIN)) == 4
    assert volumes.list(user_of("stranger")) == []
    assert volumes.list(volumes.user, project_id=other) == []
    # the owner that was reported last sees it
    volumes.send(volumes.origin(volumes.ref("v-2"), volumes.ref("v-1")))
    assert volumes.list(user_of(other)) == []
    assert {one["instance_id"]: one["source"] for one in volumes.list(volumes.user)} == {
        "v-1": None,
        "v-2": volumes.ref("v-1"),
        "v-3": volumes.ref("v-2"),
        "v-4": None,
    }


def test_lists_have_filters_and_pages(volumes: Volumes) -> None:
    times = [f"2026-01-0{day}T00:00:00.000000Z" for day in (1, 2, 2, 3)]
    for number, time in enumerate(times):
        type = "server" if number == 3 else "volume"
        volumes.send(volumes.origin(volumes.ref(f"r-{number}", type), volumes.ref("v"), time))
    query = urlencode({"installation_uuid": volumes.installation, "limit": "1"})
    pages = volumes.cloud.pages(f"/v2/origins?{query}", volumes.user, "origins")
    assert [[one["instance_id"] for one in page] for page in pages] == [
        *(["r-3"], ["r-2"], ["r-1"], ["r-0"]),
    ]
    for filters, wanted in (
        ({"resource_type": "server"}, ["r-3"]),
        ({"instance_id": "r-1"}, ["r-1"]),
        ({"created_after": times[0], "created_before": times[3]}, ["r-2", "r-1"]),
        ({"project_id": volumes.project, "limit": "2"}, ["r-3", "r-2"]),
        ({"project_id": "nobody"}, []),
    ):
        found = volumes.list(volumes.user, **filters)
        assert [one["instance_id"] for one in found] == wanted
    for query, code in (
        ("kind=boot", "parameter.unknown"),
        ("marker=x", "marker.unknown"),
        ("created_after=x", "parameter.malformed"),
        ("limit=0", "limit.malformed"),
    ):
        answer = volumes.cloud.call("GET", f"/v2/origins?{query}", volumes.user)
        assert (answer.status, answer.json["error"]["code"]) == (400, code)


def test_use_and_guard_follow_origins(
    cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = migrated(tmp_path_factory.mktemp("guard"))
    volumes = Volumes(Cloud(filtering(cloud.bare, store, guard="in-use"), cloud.bare))
    image = volumes.image()
    first, second, server = volumes.ref("v-1"), volumes.ref("v-2"), volumes.ref("s-1", "server")
    volumes.send(volumes.origin(server, second), volumes.origin(second, first))
    volumes.attach(first, image)

    def usage(headers: Mapping[str, str]) -> tuple[int, int, bool]:
        answer = volumes.cloud.call("GET", f"/v2/usages?image_ids={image}", headers)
        (row,) = answer.json["usages"]
        return row["instances"], row["live_instances"], row["used_by_others"]

    def delete() -> Any:
        return volumes.cloud.call("DELETE", f"/v2/images/{image}", volumes.user)

    assert usage(ADMIN) == usage(volumes.user) == (3, 3, False)
    assert usage(user_of("stranger")) == (0, 0, False)
    volumes.end(first)
    assert usage(ADMIN) == usage(volumes.user) == (3, 2, False)
    refused = delete()
    assert (refused.status, refused.json["error"]["code"]) == (409, "image.in-use")
    assert "used by 1 live server (s-1 of " in refused.json["error"]["message"]
    assert "and 1 live volume (v-2 of " in refused.json["error"]["message"]
    volumes.end(second)
    assert usage(volumes.user) == (3, 1, False)
    assert delete().status == 409
    volumes.end(server)
    assert usage(volumes.user) == (3, 0, False)
    assert delete().status == 204


def test_a_wrong_origin_is_removed(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = migrated(tmp_path_factory.mktemp("guard"))
    volumes = Volumes(Cloud(filtering(cloud.bare, store, guard="in-use"), cloud.bare))
    image, made = volumes.image(), volumes.image()
    right, wrong, server = volumes.ref("v-1"), volumes.ref("v-2"), volumes.ref("s-1", "server")
    later = "2026-02-01T02:00:00.000000Z"
    volumes.send(volumes.origin(server, right), volumes.origin(server, wrong, later))
    volumes.attach(wrong, image)
    volumes.attach(server, made, "snapshot")
    volumes.end(wrong)

    def parents() -> list[str]:
        answer = volumes.cloud.call("GET", f"/v2/images/{made}/ancestry", volumes.user)
        return [one["image_id"] for one in answer.json["ancestry"]]

    def live() -> int:
        answer = volumes.cloud.call("GET", f"/v2/usages?image_ids={image}", volumes.user)
        return int(answer.json["usages"][0]["live_instances"])

    assert (parents(), live()) == ([image], 1)
    assert volumes.cloud.call("DELETE", f"/v2/images/{image}", volumes.user).status == 409
    assert volumes.remove(server, later).status == 204
    assert (parents(), live()) == ([], 0)
    (left,) = volumes.list(ADMIN)
    assert (left["source"], left["since"]) == (right, SINCE)
    assert volumes.cloud.call("DELETE", f"/v2/images/{image}", volumes.user).status == 204
    # an administrator removes the last one, and nothing is known then
    assert volumes.remove(server, SINCE, ADMIN).status == 204
    assert volumes.list(ADMIN) == []
    (again,) = volumes.send(volumes.origin(server, wrong, later))
    assert again["status"] == 201


def test_an_origin_that_is_not_recorded_is_not_removed(volumes: Volumes) -> None:
    ref = volumes.ref("v-1")
    volumes.send(volumes.origin(ref, volumes.ref("v-0")))
    for other, since in (
        (ref, "2026-01-31T02:00:01Z"),
        (volumes.ref("v-1", "server"), SINCE),
        (volumes.ref("v-0"), SINCE),
        (ref | {"installation_uuid": new_uuid()}, SINCE),
    ):
        missing = volumes.remove(other, since)
        assert (missing.status, missing.json["error"]["code"]) == (404, "origin.not-found")
        assert " has no origin since 2026-01-31T02:00:0" in missing.json["error"]["message"]
    for query, code in (
        ("resource_type=volume", "parameter.malformed"),
        ("resource_type=volume&since=noon", "parameter.malformed"),
        (f"resource_type=volume&since={SINCE}&source=service", "parameter.unknown"),
        (f"resource_type=stack%20&since={SINCE}", "resource-type.unknown"),
    ):
        path = f"/v2/origins/{volumes.installation}/v-1?{query}"
        refused = volumes.cloud.call("DELETE", path, volumes.service)
        assert (refused.status, refused.json["error"]["code"]) == (400, code)
    # not even the owner may
    refused = volumes.remove(ref, SINCE, volumes.user)
    assert (refused.status, refused.json["error"]["code"]) == (403, "relation.forbidden")
    assert len(volumes.list(volumes.user)) == 1


def test_ancestry_follows_origins(volumes: Volumes) -> None:
    base, made = volumes.image(), volumes.image()
    server = volumes.ref("s-1", "server")
    volumes.attach(server, made, "snapshot")
    volumes.send(volumes.origin(server, volumes.ref("v-1")))
    volumes.attach(volumes.ref("v-1"), base)
    answer = volumes.cloud.call("GET", f"/v2/images/{made}/ancestry", volumes.user)
    (link,) = answer.json["ancestry"]
    # the first resource was made from the ancestor, the image from the last one
    way = [volumes.ref("v-1"), server]
    assert (link["image_id"], link["via"]) == (base, way)
    below = volumes.cloud.call("GET", f"/v2/images/{base}/descendants", volumes.user)
    assert [(one["image_id"], one["via"]) for one in below.json["descendants"]] == [(made, way)]
    # the root volume belongs to another project now
    volumes.send(volumes.origin(volumes.ref("v-1"), None, project_id=a_project()))
    answer = volumes.cloud.call("GET", f"/v2/images/{made}/ancestry", volumes.user)
    assert answer.json["ancestry"] == []
