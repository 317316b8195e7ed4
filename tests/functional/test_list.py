"""Glance's own image list, restricted to a server."""

import json
import random
from typing import Any

import pytest

from related_images.db import listing
from tests import wsgi
from tests.filters import instance_headers, new_uuid
from tests.functional.cloud import ADMIN, Cloud, Vm, a_project, a_vm, service_for, user_of

APPLIED = "X-Relation-Filters-Applied"


@pytest.fixture(scope="module")
def vm(cloud: Cloud) -> Vm:
    """A server with nine different images, in a project with other images."""
    vm = a_vm()
    neighbour = a_vm(project=vm.project)
    for number in range(9):
        fields = {
            "name": f"image-{number % 3}",
            "visibility": "private" if number % 2 else "shared",
            "tags": ["every", f"tag-{number % 2}"],
            "min_disk": number,
            "os_distro": f"distro-{number % 4}",
        }
        image_id = cloud.create(vm, **fields)
        if number % 3 == 0:
            for name in ("disk_format", "container_format"):
                patch = [{"op": "add", "path": f"/{name}", "value": "raw"}]
                patch[0]["value"] = "raw" if name == "disk_format" else "bare"
                cloud.call(
                    "PATCH",
                    f"/v2/images/{image_id}",
                    vm.user | {"Content-Type": "application/openstack-images-v2.1-json-patch"},
                    _json(patch),
                )
            cloud.upload(image_id, vm.user)
        cloud.create(neighbour, **fields)
        cloud.call("POST", "/v2/images", vm.user, fields)
    return vm


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_instance(cloud: Cloud, vm: Vm) -> set[str]:
    return {relation["image_id"] for relation in cloud.relations(**vm.query)}


QUERIES: list[dict[str, Any]] = [
    {},
    {"limit": 1},
    {"limit": 2},
    {"limit": 4},
    {"limit": 1000},
    {"sort": "name:asc,created_at:desc"},
    {"sort_key": "created_at", "sort_dir": "desc", "limit": 3},
    {"sort_key": "name", "limit": 2},
    {"name": "image-1"},
    {"name": "in:image-1,image-2", "limit": 2},
    {"status": "active"},
    {"status": "queued", "limit": 2},
    {"visibility": "private"},
    {"visibility": "shared", "limit": 1},
    {"tag": ["every", "tag-1"]},
    {"tag": "tag-0", "limit": 2},
    {"os_distro": "distro-2"},
    {"size_min": 1},
    {"created_at": "gt:2020-01-01T00:00:00Z"},
    {"name": "nothing has this name"},
    {"member_status": "all"},
]


@pytest.mark.parametrize("by", ["headers", "query"])
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_restricted_list_is_a_part_of_the_whole_list_in_its_order(
    cloud: Cloud, vm: Vm, query: dict[str, Any], by: str
) -> None:
    mine = of_instance(cloud, vm)
    whole = cloud.image_ids(vm.user, **query | {"limit": 1000})
    sent_headers = vm.headers if by == "headers" else {}
    asked = query | (vm.query if by == "query" else {})
    assert cloud.image_ids(vm.user | sent_headers, **asked) == [id for id in whole if id in mine]


def test_pages_have_the_requested_length_and_are_acknowledged(cloud: Cloud, vm: Vm) -> None:
    pages = cloud.pages("/v2/images?limit=4", vm.user | vm.headers, "images")
    assert [len(page) for page in pages][:3] == [4, 4, 1]
    answer = cloud.call("GET", "/v2/images?limit=4", vm.user | vm.headers)
    assert answer.headers[APPLIED] == "installation_uuid, instance_id"
    assert answer.json["first"] == "/v2/images?limit=4"
    assert answer.json["schema"] == "/v2/schemas/images"


def test_marker_may_be_any_image(cloud: Cloud, vm: Vm) -> None:
    every = cloud.image_ids(vm.user | vm.headers)
    marker = random.Random(1).choice(every)
    rest = cloud.image_ids(vm.user | vm.headers, marker=marker, limit=2)
    assert rest == every[every.index(marker) + 1 :]


def test_callers_condition_on_the_id_applies(cloud: Cloud, vm: Vm) -> None:
    every = cloud.image_ids(vm.user | vm.headers)
    foreign = next(id for id in cloud.image_ids(vm.user, limit=1000) if id not in every)
    chosen = f"in:{every[1]},{foreign},{every[0]}"
    assert cloud.image_ids(vm.user | vm.headers, id=chosen) == every[:2]
    assert cloud.image_ids(vm.user | vm.headers, id=every[3]) == [every[3]]
    assert cloud.image_ids(vm.user | vm.headers, id=foreign) == []


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "marker=nothing", "sort_key=nothing"])
def test_queries_that_glance_refuses_are_refused(cloud: Cloud, vm: Vm, query: str) -> None:
    with_tuple = cloud.call("GET", f"/v2/images?{query}", vm.user | vm.headers)
    without = cloud.call("GET", f"/v2/images?{query}", vm.user)
    assert (with_tuple.status, with_tuple.body) == (without.status, without.body)
    assert 400 <= with_tuple.status < 500
    assert APPLIED not in with_tuple.headers


@pytest.mark.parametrize("headers", [True, False])
def test_unknown_server_has_no_images(cloud: Cloud, vm: Vm, headers: bool) -> None:
    unknown = a_vm()
    sent_headers, query = (unknown.headers, "") if headers else ({}, _query(unknown.query))
    answer = cloud.call("GET", f"/v2/images?{query}", vm.user | sent_headers)
    assert (answer.status, answer.json["images"]) == (200, [])
    assert answer.headers[APPLIED] == "installation_uuid, instance_id"


def _query(values: dict[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in values.items())


def test_kind_and_label_restrict_the_list(cloud: Cloud) -> None:
    vm, made = a_vm(), {}
    for kind, label in (("snapshot", None), ("backup", "daily"), ("backup", "weekly")):
        sent_headers = instance_headers(vm.installation, vm.id, kind=kind) | (
            {"X-Relation-Label": label} if label else {}
        )
        answer = cloud.call("POST", "/v2/images", vm.service | sent_headers, {"name": "n"})
        made[kind, label] = answer.json["id"]
    backups = {made["backup", "daily"], made["backup", "weekly"]}
    assert set(cloud.image_ids(vm.user | vm.headers)) == set(made.values())
    assert set(cloud.image_ids(vm.user, **vm.query, relation_kind="backup")) == backups
    daily = {"relation_kind": "backup", "relation_label": "daily"}
    assert cloud.image_ids(vm.user, **vm.query, **daily) == [made["backup", "daily"]]
    answer = cloud.call("GET", f"/v2/images?{_query(vm.query | daily)}", vm.user)
    assert answer.headers[APPLIED] == "installation_uuid, instance_id, kind, label"


def test_boot_image_is_listed_only_for_kind_boot(cloud: Cloud) -> None:
    vm = a_vm()
    image_id = cloud.call("POST", "/v2/images", vm.user, {"name": "n"}).json["id"]
    attached = cloud.call(
        "POST", "/v2/relations", vm.service, {**vm.query, "image_id": image_id, "kind": "boot"}
    )
    assert attached.status == 201
    assert cloud.image_ids(vm.user | vm.headers) == []
    assert cloud.image_ids(vm.user, **vm.query, relation_kind="boot") == [image_id]


def test_two_projects_see_what_glance_shows_them(cloud: Cloud) -> None:
    vm = a_vm()
    other = a_vm(vm.installation, vm.id)
    mine, theirs = cloud.create(vm), cloud.create(other)
    assert cloud.image_ids(vm.user | vm.headers) == [mine]
    assert cloud.image_ids(other.user | vm.headers) == [theirs]
    assert set(cloud.image_ids(ADMIN | vm.headers)) == {mine, theirs}


def test_community_and_public_images_are_listed_as_glance_lists_them(cloud: Cloud) -> None:
    """The project that owns the server gets them; other projects get none."""
    vm, stranger = a_vm(), user_of(a_project())
    maker = a_vm(vm.installation, vm.id)
    public, community, private, shared = (
        cloud.create_for(maker.project, vm) for _ in ("public", "community", "private", "shared")
    )
    for image_id, visibility in (
        (public, "public"),
        (community, "community"),
        (private, "private"),
    ):
        patch = [{"op": "replace", "path": "/visibility", "value": visibility}]
        answer = cloud.call(
            "PATCH",
            f"/v2/images/{image_id}",
            ADMIN | {"Content-Type": "application/openstack-images-v2.1-json-patch"},
            _json(patch),
        )
        assert answer.status == 200, answer.body
    assert set(cloud.image_ids(maker.user | vm.headers)) == {public, community, private, shared}
    assert cloud.image_ids(vm.user | vm.headers) == [public]
    assert cloud.image_ids(vm.user | vm.headers, visibility="community") == [community]
    assert set(cloud.image_ids(vm.user | vm.headers, visibility="all")) == {public, community}
    assert cloud.image_ids(stranger | vm.headers, visibility="all") == []


def test_shared_image_is_listed_after_it_is_accepted(cloud: Cloud) -> None:
    vm, other = a_vm(), a_project()
    member, maker = vm.project, a_project()
    image_id = cloud.create_for(maker, vm)
    members = f"/v2/images/{image_id}/members"
    for name in (member, other):
        assert cloud.call("POST", members, user_of(maker), {"member": name}).status == 200
    listed, stranger = user_of(member) | vm.headers, user_of(other) | vm.headers
    assert cloud.image_ids(listed) == []
    assert cloud.image_ids(listed, member_status="pending", visibility="shared") == [image_id]
    accepted = cloud.call("PUT", f"{members}/{member}", user_of(member), {"status": "accepted"})
    assert accepted.status == 200
    assert cloud.image_ids(listed) == [image_id]
    pending = {"member_status": "pending", "visibility": "shared"}
    assert image_id in cloud.image_ids(user_of(other), **pending)
    assert cloud.image_ids(stranger, **pending) == []


def test_deactivated_and_hidden_images_are_listed_as_glance_lists_them(cloud: Cloud) -> None:
    vm = a_vm()
    off, hidden = (
        cloud.create(vm, disk_format="raw", container_format="bare"),
        cloud.create(vm, os_hidden=True),
    )
    cloud.upload(off, vm.user)
    assert cloud.call("POST", f"/v2/images/{off}/actions/deactivate", ADMIN).status == 204
    assert cloud.image_ids(vm.user | vm.headers) == [off]
    assert cloud.image_ids(vm.user | vm.headers, status="deactivated") == [off]
    assert cloud.image_ids(vm.user | vm.headers, os_hidden="true") == [hidden]


def test_relation_without_image_is_not_listed(cloud: Cloud) -> None:
    vm = a_vm()
    image_id = cloud.create(vm)
    assert wsgi.call(cloud.bare, "DELETE", f"/v2/images/{image_id}", vm.user).status == 204
    assert len(cloud.relations(**vm.query)) == 1
    assert cloud.image_ids(vm.user | vm.headers) == []


def test_any_caller_may_list_and_the_plain_list_is_unrestricted(cloud: Cloud, vm: Vm) -> None:
    whole = cloud.image_ids(vm.user, limit=1000)
    bare = wsgi.call(cloud.bare, "GET", "/v2/images?limit=1000", vm.user).json["images"]
    assert whole == [image["id"] for image in bare]
    assert len(whole) >= 27
    assert cloud.image_ids(service_for(vm.project), limit=1000) == whole
    assert APPLIED not in cloud.call("GET", "/v2/images", vm.user).headers


def test_server_may_be_given_partly_in_headers_and_partly_in_the_query(
    cloud: Cloud, vm: Vm
) -> None:
    halves = {"X-Installation-UUID": vm.installation}
    answer = cloud.call("GET", f"/v2/images?instance_id={vm.id}", vm.user | halves)
    assert len(answer.json["images"]) == 9


def test_different_servers_in_headers_and_query_are_refused(cloud: Cloud, vm: Vm) -> None:
    query = _query({"installation_uuid": new_uuid(), "instance_id": vm.id})
    answer = cloud.call("GET", f"/v2/images?{query}", vm.user | vm.headers)
    assert (answer.status, answer.json["error"]["code"]) == (400, "tuple.conflict")


@pytest.mark.parametrize("label", [{}, {"relation_label": "daily"}])
def test_too_many_images_of_others_are_not_revealed(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, label: dict[str, str]
) -> None:
    monkeypatch.setattr(listing, "IMAGES_LIMIT", 2)
    vm, stranger = a_vm(), a_project()
    theirs = service_for(stranger) | instance_headers(vm.installation, vm.id, label="daily")
    mine = vm.service | instance_headers(vm.installation, vm.id, label="daily")
    for _ in range(3):
        assert cloud.call("POST", "/v2/images", mine, {"name": "n"}).status == 201
    query = vm.query | label
    assert cloud.image_ids(user_of(stranger), **query) == []
    for headers in (vm.user, ADMIN, vm.service):
        answer = cloud.call("GET", f"/v2/images?{_query(query)}", headers)
        assert (answer.status, answer.json["error"]["code"]) == (409, "instance.too-large")
    created = [cloud.call("POST", "/v2/images", theirs, {"name": "n"}).json for _ in range(2)]
    own = {image["id"] for image in created}
    assert set(cloud.image_ids(user_of(stranger), **query)) == own
