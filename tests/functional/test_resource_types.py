"""A server and a volume with the same ID, on each route, header, link and marker."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.filters import filtering, migrated, new_uuid
from tests.functional.cloud import ADMIN, Cloud, Server, new_server, service_for, user_of
from tests.servers import Answer

OF_VOLUME = {"X-Resource-Type": "volume"}


def create(cloud: Cloud, server: Server, headers: Mapping[str, str] | None = None) -> str:
    sent = server.service | server.headers | dict(headers or {})
    answer = cloud.call("POST", "/v2/images", sent, {"name": "n"})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def attach(cloud: Cloud, server: Server, image_id: str, kind: str, **more: str) -> Answer:
    body = {**server.query, "image_id": image_id, "kind": kind, **more}
    return cloud.call("POST", "/v2/relations", server.service, body)


class SameIdResources:
    """A server and a volume with the same ID, with an image each; both were made from ``base``."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.server = cloud, new_server()
        made = cloud.call("POST", "/v2/images", self.server.user, {"name": "base"})
        self.base = str(made.json["id"])
        assert attach(cloud, self.server, self.base, "boot").status == 201
        assert attach(cloud, self.server, self.base, "boot", resource_type="volume").status == 201
        self.of_server = create(cloud, self.server)
        self.of_volume = create(cloud, self.server, OF_VOLUME)

    def get(self, path: str, **query: str) -> Any:
        return self.get_as(self.server.user, path, **query)

    def get_as(self, headers: Mapping[str, str], path: str, **query: str) -> Any:
        full = f"{path}?{urlencode(query)}" if query else path
        answer = self.cloud.call("GET", full, headers)
        assert answer.status == 200, answer.body
        return answer.json

    @property
    def path(self) -> str:
        return f"/v2/instances/{self.server.installation}/{self.server.id}"


@pytest.fixture
def twins(cloud: Cloud) -> SameIdResources:
    return SameIdResources(cloud)


def test_an_image_list_holds_the_images_of_the_type(twins: SameIdResources) -> None:
    cloud, server = twins.cloud, twins.server
    for headers, query, wanted, applied in (
        (server.headers, {}, twins.of_server, "installation_uuid, instance_id"),
        (
            server.headers | OF_VOLUME,
            {},
            twins.of_volume,
            "installation_uuid, instance_id, resource_type",
        ),
        (
            {},
            server.query | {"relation_resource_type": "volume"},
            twins.of_volume,
            "installation_uuid, instance_id, resource_type",
        ),
        (
            server.headers | {"X-Resource-Type": "server"},
            {},
            twins.of_server,
            "installation_uuid, instance_id, resource_type",
        ),
    ):
        path = f"/v2/images?{urlencode(query)}"
        answer = cloud.call("GET", path, server.user | headers)
        assert [image["id"] for image in answer.json["images"]] == [wanted]
        assert answer.headers["X-Relation-Filters-Applied"] == applied


def test_links_of_an_image_list_keep_the_type(twins: SameIdResources) -> None:
    second = create(twins.cloud, twins.server, OF_VOLUME)
    query = twins.server.query | {"relation_resource_type": "volume", "limit": "1"}
    pages = twins.cloud.pages(f"/v2/images?{urlencode(query)}", twins.server.user, "images")
    assert {image["id"] for page in pages for image in page} == {twins.of_volume, second}
    assert [len(page) for page in pages if page] == [1, 1]


def test_the_header_and_the_query_must_agree(twins: SameIdResources) -> None:
    headers = twins.server.user | twins.server.headers | OF_VOLUME
    answer = twins.cloud.call("GET", "/v2/images?relation_resource_type=server", headers)
    assert (answer.status, answer.json["error"]["code"]) == (400, "tuple.conflict")


@pytest.mark.parametrize("wrong", ["", "volume,volume", "a b", "t" * 65])
def test_a_malformed_type_is_refused_and_nothing_is_created(cloud: Cloud, wrong: str) -> None:
    server = new_server()
    headers = server.service | server.headers | {"X-Resource-Type": wrong}
    query = urlencode({"resource_type": wrong})
    answers = [
        cloud.call("POST", "/v2/images", headers, {"name": "n"}),
        cloud.call("GET", "/v2/images", headers),
        cloud.call("GET", f"/v2/relations?{query}", server.user),
        cloud.call("GET", f"/v2/instances/{new_uuid()}/i?{query}", ADMIN),
    ]
    for answer in answers:
        assert (answer.status, answer.json["error"]["code"]) == (400, "resource-type.unknown")
        assert "give 1 to 64 of the characters" in answer.json["error"]["message"]
    assert cloud.total(server.project) == 0


@pytest.mark.parametrize("unknown", ["Volume", "stack"])
def test_no_image_is_made_from_a_resource_of_an_unknown_type(cloud: Cloud, unknown: str) -> None:
    server = new_server()
    headers = server.service | server.headers | {"X-Resource-Type": unknown}
    answer = cloud.call("POST", "/v2/images", headers, {"name": "n"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "resource-type.unknown")
    assert "server, volume, volume-snapshot, volume-backup" in answer.json["error"]["message"]
    assert cloud.total(server.project) == 0


@pytest.mark.parametrize("unknown", ["Volume", "stack"])
def test_resources_of_an_unknown_type_are_not_found(cloud: Cloud, unknown: str) -> None:
    server, query = new_server(), f"resource_type={unknown}"
    headers = server.service | server.headers | {"X-Resource-Type": unknown}
    assert cloud.call("GET", "/v2/images", headers).json["images"] == []
    assert cloud.call("GET", f"/v2/relations?{query}", server.user).json["relations"] == []
    assert cloud.call("GET", f"/v2/instances/{new_uuid()}/i?{query}", ADMIN).status == 404


def test_relations_have_types_and_links_to_themselves(twins: SameIdResources) -> None:
    listed = twins.get("/v2/relations", **twins.server.query)["relations"]
    assert sorted((row["kind"], row["resource_type"]) for row in listed) == [
        *(("boot", "server"), ("boot", "volume"), ("snapshot", "server"), ("snapshot", "volume")),
    ]
    for type, image in (("server", twins.of_server), ("volume", twins.of_volume)):
        (row,) = twins.get(
            "/v2/relations", resource_type=type, kind="snapshot", **twins.server.query
        )["relations"]
        assert row["image_id"] == image
        of_image = twins.get(f"/v2/images/{image}/relations", resource_type=type)["relations"]
        assert of_image == [row]
        assert twins.cloud.call("DELETE", row["self"], twins.server.service).status == 204
        assert twins.cloud.call("DELETE", row["self"], twins.server.service).status == 404
    assert twins.get("/v2/relations", kind="snapshot", **twins.server.query)["relations"] == []


def test_markers_lead_through_resources_of_both_types(twins: SameIdResources) -> None:
    query = urlencode(twins.server.query | {"limit": "1"})
    relations = twins.cloud.pages(f"/v2/relations?{query}", twins.server.user, "relations")
    assert [len(page) for page in relations] == [1, 1, 1, 1]
    assert len({(page[0]["kind"], page[0]["resource_type"]) for page in relations}) == 4
    instances = twins.cloud.pages(f"/v2/instances?{query}", twins.server.user, "instances")
    assert [page[0]["resource_type"] for page in instances] == ["server", "volume"]


def test_one_resource_is_shown_and_ended_without_the_other(twins: SameIdResources) -> None:
    server, volume = twins.get(twins.path), twins.get(twins.path, resource_type="volume")
    assert [one["images"]["snapshot"]["latest_image_id"] for one in (server, volume)] == [
        *(twins.of_server, twins.of_volume),
    ]
    assert (server["self"], volume["self"]) == (twins.path, f"{twins.path}?resource_type=volume")
    answer = twins.cloud.call("DELETE", volume["self"], twins.server.service)
    assert answer.status == 204
    assert twins.get(twins.path)["ended_at"] is None
    assert twins.get(volume["self"])["ended_at"] is not None
    missing = twins.cloud.call(
        "GET", f"{twins.path}?resource_type=volume-backup", twins.server.user
    )
    assert (missing.status, missing.json["error"]["code"]) == (404, "instance.not-found")


def test_lineage_names_the_type_of_the_resource_between(twins: SameIdResources) -> None:
    for type, image in (("server", twins.of_server), ("volume", twins.of_volume)):
        (above,) = twins.get(f"/v2/images/{image}/ancestry")["ancestry"]
        assert (above["image_id"], above["via"]) == (
            twins.base,
            [twins.server.query | {"resource_type": type}],
        )
    below = twins.get(f"/v2/images/{twins.base}/descendants")["descendants"]
    assert {row["image_id"]: row["via"][0]["resource_type"] for row in below} == {
        twins.of_server: "server",
        twins.of_volume: "volume",
    }


def test_usage_counts_both_until_they_end(twins: SameIdResources) -> None:
    def live() -> int:
        (row,) = twins.get("/v2/usages", image_ids=twins.base)["usages"]
        assert row["instances"] == 2
        return int(row["live_instances"])

    assert live() == 2
    twins.cloud.call("DELETE", twins.path, twins.server.service)
    assert live() == 1
    twins.cloud.call("DELETE", f"{twins.path}?resource_type=volume", twins.server.service)
    assert live() == 0


def test_a_live_volume_protects_its_image(
    cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = migrated(tmp_path_factory.mktemp("guard"))
    twins = SameIdResources(Cloud(filtering(cloud.bare, store, guard="in-use"), cloud.bare))
    twins.cloud.call("DELETE", twins.path, twins.server.service)
    answer = twins.cloud.call("DELETE", f"/v2/images/{twins.base}", twins.server.user)
    assert (answer.status, answer.json["error"]["code"]) == (409, "image.in-use")
    assert f"1 live volume ({twins.server.id} of " in answer.json["error"]["message"]
    twins.cloud.call("DELETE", f"{twins.path}?resource_type=volume", twins.server.service)
    answer = twins.cloud.call("DELETE", f"/v2/images/{twins.base}", twins.server.user)
    assert answer.status == 204


def test_another_project_sees_neither(twins: SameIdResources) -> None:
    stranger = user_of("stranger")
    for query in ({}, {"resource_type": "volume"}):
        path = f"{twins.path}?{urlencode(query)}"
        assert twins.cloud.call("GET", path, stranger).status == 404
    assert twins.get_as(stranger, "/v2/relations", **twins.server.query)["relations"] == []
    assert twins.get_as(stranger, "/v2/instances", resource_type="volume")["instances"] == []


def test_info_lists_the_types(cloud: Cloud) -> None:
    info = cloud.call("GET", "/v2/info/relations", user_of("anybody")).json
    assert info["resource_types"] == ["server", "volume", "volume-snapshot", "volume-backup"]


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [(user_of("anybody"), False), (ADMIN, False), (service_for("anybody"), True)],
)
def test_info_says_whether_the_caller_may_record(
    cloud: Cloud, headers: dict[str, str], allowed: bool
) -> None:
    info = cloud.call("GET", "/v2/info/relations", headers).json
    assert info["recording"] == {"available": True, "allowed": allowed}
