"""Glance's own image list, restricted to a server."""

import json
import random
from typing import Any
from urllib.parse import parse_qs

import pytest

from related_images.db import image_list
from related_images.middleware import glance
from related_images.middleware import image_list as listing
from tests import wsgi
from tests.filters import instance_headers, new_uuid
from tests.functional.cloud import ADMIN, Cloud, Server, a_project, new_server, service_for, user_of

APPLIED = "X-Relation-Filters-Applied"


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    """A server with nine different images, in a project with other images."""
    server = new_server()
    neighbour = new_server(project=server.project)
    for number in range(9):
        fields = {
            "name": f"image-{number % 3}",
            "visibility": "private" if number % 2 else "shared",
            "tags": ["every", f"tag-{number % 2}"],
            "min_disk": number,
            "os_distro": f"distro-{number % 4}",
        }
        image_id = cloud.create(server, **fields)
        if number % 3 == 0:
            for name in ("disk_format", "container_format"):
                patch = [{"op": "add", "path": f"/{name}", "value": "raw"}]
                patch[0]["value"] = "raw" if name == "disk_format" else "bare"
                cloud.call(
                    "PATCH",
                    f"/v2/images/{image_id}",
                    server.user | {"Content-Type": "application/openstack-images-v2.1-json-patch"},
                    _json(patch),
                )
            cloud.upload(image_id, server.user)
        cloud.create(neighbour, **fields)
        cloud.call("POST", "/v2/images", server.user, fields)
    return server


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_instance(cloud: Cloud, server: Server) -> set[str]:
    return {relation["image_id"] for relation in cloud.relations(**server.query)}


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
    cloud: Cloud, server: Server, query: dict[str, Any], by: str
) -> None:
    mine = of_instance(cloud, server)
    whole = cloud.image_ids(server.user, **query | {"limit": 1000})
    sent_headers = server.headers if by == "headers" else {}
    asked = query | (server.query if by == "query" else {})
    assert cloud.image_ids(server.user | sent_headers, **asked) == [
        id for id in whole if id in mine
    ]


def test_pages_have_the_requested_length_and_are_acknowledged(cloud: Cloud, server: Server) -> None:
    pages = cloud.pages("/v2/images?limit=4", server.user | server.headers, "images")
    assert [len(page) for page in pages][:3] == [4, 4, 1]
    answer = cloud.call("GET", "/v2/images?limit=4", server.user | server.headers)
    assert answer.headers[APPLIED] == "installation_uuid, instance_id"
    assert answer.json["first"] == "/v2/images?limit=4"
    assert answer.json["schema"] == "/v2/schemas/images"


def test_marker_may_be_any_image(cloud: Cloud, server: Server) -> None:
    every = cloud.image_ids(server.user | server.headers)
    marker = random.Random(1).choice(every)
    rest = cloud.image_ids(server.user | server.headers, marker=marker, limit=2)
    assert rest == every[every.index(marker) + 1 :]


def test_callers_condition_on_the_id_applies(cloud: Cloud, server: Server) -> None:
    every = cloud.image_ids(server.user | server.headers)
    foreign = next(id for id in cloud.image_ids(server.user, limit=1000) if id not in every)
    chosen = f"in:{every[1]},{foreign},{every[0]}"
    assert cloud.image_ids(server.user | server.headers, id=chosen) == every[:2]
    assert cloud.image_ids(server.user | server.headers, id=every[3]) == [every[3]]
    assert cloud.image_ids(server.user | server.headers, id=foreign) == []


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "marker=nothing", "sort_key=nothing"])
def test_queries_that_glance_refuses_are_refused(cloud: Cloud, server: Server, query: str) -> None:
    with_headers = cloud.call("GET", f"/v2/images?{query}", server.user | server.headers)
    without = cloud.call("GET", f"/v2/images?{query}", server.user)
    assert (with_headers.status, with_headers.body) == (without.status, without.body)
    assert 400 <= with_headers.status < 500
    assert APPLIED not in with_headers.headers


@pytest.mark.parametrize("headers", [True, False])
def test_unknown_server_has_no_images(cloud: Cloud, server: Server, headers: bool) -> None:
    unknown = new_server()
    sent_headers, query = (unknown.headers, "") if headers else ({}, _query(unknown.query))
    answer = cloud.call("GET", f"/v2/images?{query}", server.user | sent_headers)
    assert (answer.status, answer.json["images"]) == (200, [])
    assert answer.headers[APPLIED] == "installation_uuid, instance_id"


def _query(values: dict[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in values.items())


def test_kind_and_label_restrict_the_list(cloud: Cloud) -> None:
    server, made = new_server(), {}
    for kind, label in (("snapshot", None), ("backup", "daily"), ("backup", "weekly")):
        sent_headers = instance_headers(server.installation, server.id, kind=kind) | (
            {"X-Relation-Label": label} if label else {}
        )
        answer = cloud.call("POST", "/v2/images", server.service | sent_headers, {"name": "n"})
        made[kind, label] = answer.json["id"]
    backups = {made["backup", "daily"], made["backup", "weekly"]}
    assert set(cloud.image_ids(server.user | server.headers)) == set(made.values())
    assert set(cloud.image_ids(server.user, **server.query, relation_kind="backup")) == backups
    daily = {"relation_kind": "backup", "relation_label": "daily"}
    assert cloud.image_ids(server.user, **server.query, **daily) == [made["backup", "daily"]]
    answer = cloud.call("GET", f"/v2/images?{_query(server.query | daily)}", server.user)
    assert answer.headers[APPLIED] == "installation_uuid, instance_id, kind, label"


def test_boot_image_is_listed_only_for_kind_boot(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.call("POST", "/v2/images", server.user, {"name": "n"}).json["id"]
    attached = cloud.call(
        "POST",
        "/v2/relations",
        server.service,
        {**server.query, "image_id": image_id, "kind": "boot"},
    )
    assert attached.status == 201
    assert cloud.image_ids(server.user | server.headers) == []
    assert cloud.image_ids(server.user, **server.query, relation_kind="boot") == [image_id]


def test_two_projects_see_what_glance_shows_them(cloud: Cloud) -> None:
    server = new_server()
    other = new_server(server.installation, server.id)
    mine, theirs = cloud.create(server), cloud.create(other)
    assert cloud.image_ids(server.user | server.headers) == [mine]
    assert cloud.image_ids(other.user | server.headers) == [theirs]
    assert set(cloud.image_ids(ADMIN | server.headers)) == {mine, theirs}


def test_community_and_public_images_are_listed_as_glance_lists_them(cloud: Cloud) -> None:
    """The project that owns the server gets them; other projects get none."""
    server, stranger = new_server(), user_of(a_project())
    maker = new_server(server.installation, server.id)
    public, community, private, shared = (
        cloud.create_for(maker.project, server)
        for _ in ("public", "community", "private", "shared")
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
    assert set(cloud.image_ids(maker.user | server.headers)) == {public, community, private, shared}
    assert cloud.image_ids(server.user | server.headers) == [public]
    assert cloud.image_ids(server.user | server.headers, visibility="community") == [community]
    assert set(cloud.image_ids(server.user | server.headers, visibility="all")) == {
        public,
        community,
    }
    assert cloud.image_ids(stranger | server.headers, visibility="all") == []


def test_shared_image_is_listed_after_it_is_accepted(cloud: Cloud) -> None:
    server, other = new_server(), a_project()
    member, maker = server.project, a_project()
    image_id = cloud.create_for(maker, server)
    members = f"/v2/images/{image_id}/members"
    for name in (member, other):
        assert cloud.call("POST", members, user_of(maker), {"member": name}).status == 200
    listed, stranger = user_of(member) | server.headers, user_of(other) | server.headers
    assert cloud.image_ids(listed) == []
    assert cloud.image_ids(listed, member_status="pending", visibility="shared") == [image_id]
    accepted = cloud.call("PUT", f"{members}/{member}", user_of(member), {"status": "accepted"})
    assert accepted.status == 200
    assert cloud.image_ids(listed) == [image_id]
    pending = {"member_status": "pending", "visibility": "shared"}
    assert image_id in cloud.image_ids(user_of(other), **pending)
    assert cloud.image_ids(stranger, **pending) == []


def test_deactivated_and_hidden_images_are_listed_as_glance_lists_them(cloud: Cloud) -> None:
    server = new_server()
    off, hidden = (
        cloud.create(server, disk_format="raw", container_format="bare"),
        cloud.create(server, os_hidden=True),
    )
    cloud.upload(off, server.user)
    assert cloud.call("POST", f"/v2/images/{off}/actions/deactivate", ADMIN).status == 204
    assert cloud.image_ids(server.user | server.headers) == [off]
    assert cloud.image_ids(server.user | server.headers, status="deactivated") == [off]
    assert cloud.image_ids(server.user | server.headers, os_hidden="true") == [hidden]


def test_relation_without_image_is_not_listed(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server)
    assert wsgi.call(cloud.bare, "DELETE", f"/v2/images/{image_id}", server.user).status == 204
    assert len(cloud.relations(**server.query)) == 1
    assert cloud.image_ids(server.user | server.headers) == []


def test_any_caller_may_list_and_the_plain_list_is_unrestricted(
    cloud: Cloud, server: Server
) -> None:
    whole = cloud.image_ids(server.user, limit=1000)
    bare = wsgi.call(cloud.bare, "GET", "/v2/images?limit=1000", server.user).json["images"]
    assert whole == [image["id"] for image in bare]
    assert len(whole) >= 27
    assert cloud.image_ids(service_for(server.project), limit=1000) == whole
    assert APPLIED not in cloud.call("GET", "/v2/images", server.user).headers


def test_server_may_be_given_partly_in_headers_and_partly_in_the_query(
    cloud: Cloud, server: Server
) -> None:
    halves = {"X-Installation-UUID": server.installation}
    answer = cloud.call("GET", f"/v2/images?instance_id={server.id}", server.user | halves)
    assert len(answer.json["images"]) == 9


def test_different_servers_in_headers_and_query_are_refused(cloud: Cloud, server: Server) -> None:
    query = _query({"installation_uuid": new_uuid(), "instance_id": server.id})
    answer = cloud.call("GET", f"/v2/images?{query}", server.user | server.headers)
    assert (answer.status, answer.json["error"]["code"]) == (400, "tuple.conflict")


@pytest.mark.parametrize("label", [{}, {"relation_label": "daily"}])
def test_any_number_of_images_may_match(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, label: dict[str, str]
) -> None:
    monkeypatch.setattr(image_list, "IMAGES_LIMIT", 2)
    server, stranger = new_server(), a_project()
    theirs = service_for(stranger) | instance_headers(server.installation, server.id, label="daily")
    mine = server.service | instance_headers(server.installation, server.id, label="daily")
    created = [cloud.call("POST", "/v2/images", mine, {"name": "n"}).json["id"] for _ in range(3)]
    query = server.query | label
    assert cloud.image_ids(user_of(stranger), **query) == []
    for headers in (server.user, ADMIN, server.service):
        assert cloud.image_ids(headers, **query, limit=2) == created[::-1]
    others = [cloud.call("POST", "/v2/images", theirs, {"name": "n"}).json["id"] for _ in range(2)]
    assert cloud.image_ids(user_of(stranger), **query) == others[::-1]
    assert cloud.image_ids(server.user, **query) == created[::-1]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Glance's list is searched page by page, in pages of two images."""
    monkeypatch.setattr(image_list, "IMAGES_LIMIT", -1)
    monkeypatch.setattr(listing, "PAGE", 2)


def plain_images(cloud: Cloud, server: Server, number: int) -> list[str]:
    """Create images without a relation."""
    made = [cloud.call("POST", "/v2/images", server.user, {"name": "n"}) for _ in range(number)]
    return [one.json["id"] for one in made]


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("deleted", [1, 3])
@pytest.mark.parametrize("newer", [0, 1])
def test_the_search_continues_after_an_image_that_was_deleted(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, deleted: int, newer: int
) -> None:
    server = new_server()
    oldest = cloud.create(server)
    plain = plain_images(cloud, server, 8)
    found = [*(cloud.create(server) for _ in range(newer)), oldest]
    known = found[:newer] + plain[::-1]
    gone: list[str] = []

    def deleting(app: Any, environ: Any) -> Any:
        """Delete the image of the first marker, and those before it."""
        for last in [n for n, id in enumerate(known) if f"marker={id}" in environ["QUERY_STRING"]]:
            if not gone:
                gone.extend(known[max(newer, last + 1 - deleted) : last + 1])
                for path in (f"/v2/images/{image_id}" for image_id in gone):
                    assert wsgi.call(cloud.bare, "DELETE", path, ADMIN).status == 204
        return glance.call(app, environ)

    monkeypatch.setattr(listing, "call", deleting)
    assert cloud.image_ids(server.user, relation_kind="snapshot", limit=3) == found
    assert gone


def test_the_search_goes_back_to_a_marker_that_still_exists(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images of a page are deleted: its predecessor is not listed twice."""
    monkeypatch.setattr(image_list, "IMAGES_LIMIT", -1)
    monkeypatch.setattr(listing, "RESERVE", 0.1)  # pages of one image
    server = new_server()
    oldest = cloud.create(server)
    (deleted,) = plain_images(cloud, server, 1)
    newer = [cloud.create(server) for _ in range(2)][::-1]
    plain = plain_images(cloud, server, 2)[::-1]
    markers: list[str] = []

    def deleting(app: Any, environ: Any) -> Any:
        markers.extend(parse_qs(environ["QUERY_STRING"]).get("marker", ()))
        if markers and markers[-1] == deleted and markers.count(deleted) == 1:
            assert wsgi.call(cloud.bare, "DELETE", f"/v2/images/{deleted}", ADMIN).status == 204
        return glance.call(app, environ)

    monkeypatch.setattr(listing, "call", deleting)
    assert cloud.image_ids(server.user, relation_kind="snapshot", limit=4) == [*newer, oldest]
    assert deleted in markers
    assert plain[0] not in markers


@pytest.mark.usefixtures("searched")
def test_the_marker_of_a_full_page_is_its_last_image(cloud: Cloud) -> None:
    server = new_server()
    created = [cloud.create(server) for _ in range(2)]
    plain_images(cloud, server, 1)
    page = cloud.call("GET", "/v2/images?relation_kind=snapshot&limit=1", server.user).json
    assert page["next"].endswith(f"marker={created[1]}")
    page = cloud.call("GET", page["next"], server.user).json
    assert [image["id"] for image in page["images"]] == created[:1]


def test_links_keep_text_that_is_not_encoded(cloud: Cloud, server: Server) -> None:
    """curl sends the bytes of such text as they are."""
    headers = server.service | server.headers
    names = ["облако", "облако", "other"]
    created = [cloud.call("POST", "/v2/images", headers, {"name": name}).json for name in names]
    query = "limit=1&name=облако".encode().decode("latin-1")
    page = cloud.call("GET", f"/v2/images?{query}", server.user | server.headers).json
    assert [image["id"] for image in page["images"]] == [created[1]["id"]]
    assert page["next"].isascii()
    page = cloud.call("GET", page["next"], server.user | server.headers).json
    assert [image["id"] for image in page["images"]] == [created[0]["id"]]
