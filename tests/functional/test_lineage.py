"""Ancestry and descendants with the real Glance: fields, pages, projects, cycles, errors."""

from typing import Any

import pytest

from related_images.middleware import paging
from tests.filters import new_uuid
from tests.functional.cloud import ADMIN, Cloud, Server, a_project, new_server, user_of


def start(cloud: Cloud, server: Server, image_id: str, **more: str) -> None:
    body = {
        "installation_uuid": server.installation,
        "instance_id": server.id,
        "image_id": image_id,
        "kind": "boot",
    }
    answer = cloud.call("POST", "/v2/relations", server.service, body | more)
    assert answer.status in (200, 201), answer.body


def a_public_image(cloud: Cloud) -> str:
    body = {"name": "base", "visibility": "public"}
    answer = cloud.call("POST", "/v2/images", ADMIN, body)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def asked(cloud: Cloud, image_id: str, what: str, headers: dict[str, str] = ADMIN) -> Any:
    answer = cloud.call("GET", f"/v2/images/{image_id}/{what}", headers)
    assert answer.status == 200, answer.body
    return answer.json


def a_chain(cloud: Cloud, length: int, project: str) -> list[str]:
    """Create images, each from a server that was started from the previous one."""
    images = [a_public_image(cloud)]
    for _ in range(length):
        server = new_server(project=project)
        start(cloud, server, images[-1])
        images.append(cloud.create(server))
    return images


def test_responses_have_the_documented_fields(cloud: Cloud) -> None:
    server, base = new_server(), a_public_image(cloud)
    start(cloud, server, base)
    image_id = cloud.create(server)
    made_at = cloud.relations(image_id=image_id)[0]["created_at"]
    via = server.query | {"resource_type": "server"}
    common = {
        "via": [via],
        "kind": "snapshot",
        "created_at": made_at,
        "image_deleted_at": None,
        "project_id": server.project,
        "instance_ended_at": None,
    }
    assert asked(cloud, image_id, "ancestry", server.user) == {
        "image_id": image_id,
        "ancestry": [{"image_id": base, **common}],
        "first": f"/v2/images/{image_id}/ancestry",
    }
    assert asked(cloud, base, "descendants", server.user) == {
        "image_id": base,
        "descendants": [{"image_id": image_id, "depth": 1, "parent_image_id": base, **common}],
        "first": f"/v2/images/{base}/descendants",
    }


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_contain_all_entries(cloud: Cloud, limit: int) -> None:
    project = a_project()
    images = a_chain(cloud, 5, project)
    for headers in (ADMIN, user_of(project)):
        up = cloud.pages(f"/v2/images/{images[-1]}/ancestry?limit={limit}", headers, "ancestry")
        assert [entry["image_id"] for page in up for entry in page] == images[-2::-1]
        path = f"/v2/images/{images[0]}/descendants?limit={limit}"
        down = cloud.pages(path, headers, "descendants")
        assert [entry["image_id"] for page in down for entry in page] == images[1:]


def test_depth_and_kind_restrict_descendants(cloud: Cloud) -> None:
    project = a_project()
    images = a_chain(cloud, 3, project)
    found = asked(cloud, images[0], "descendants?depth=2")["descendants"]
    assert [entry["depth"] for entry in found] == [1, 2]
    assert asked(cloud, images[0], "descendants?kind=backup")["descendants"] == []
    found = asked(cloud, images[0], "descendants?kind=snapshot")["descendants"]
    assert [entry["image_id"] for entry in found] == images[1:]


def test_lineage_includes_deleted_images_and_servers(cloud: Cloud) -> None:
    server = new_server()
    base, other = a_public_image(cloud), new_server(project=server.project)
    start(cloud, server, base)
    middle = cloud.create(server)
    start(cloud, other, middle)
    leaf = cloud.create(other)
    assert cloud.call("DELETE", f"/v2/images/{middle}", server.user).status == 204
    ended = f"/v2/instances/{other.installation}/{other.id}"
    assert cloud.call("DELETE", ended, server.service).status == 204
    nearest, root = asked(cloud, leaf, "ancestry", server.user)["ancestry"]
    assert nearest["image_deleted_at"].endswith("Z")
    assert nearest["instance_ended_at"].endswith("Z")
    assert (root["image_id"], root["image_deleted_at"]) == (base, None)
    assert asked(cloud, middle, "ancestry", server.user)["ancestry"][0]["image_id"] == base


def test_project_does_not_see_images_of_others(cloud: Cloud) -> None:
    mine, theirs = new_server(), new_server()
    base = a_public_image(cloud)
    start(cloud, mine, base)
    shared = cloud.create(mine, visibility="shared")
    members = f"/v2/images/{shared}/members"
    assert cloud.call("POST", members, mine.user, {"member": theirs.project}).status == 200
    start(cloud, theirs, shared)
    for _ in range(3):
        leaf = cloud.create(theirs)
    up = asked(cloud, leaf, "ancestry", theirs.user)["ancestry"]
    assert [entry["image_id"] for entry in up] == [shared]
    down = asked(cloud, base, "descendants", mine.user)["descendants"]
    assert [(entry["image_id"], entry["depth"]) for entry in down] == [(shared, 1)]
    pages = cloud.pages(f"/v2/images/{base}/descendants?limit=1", mine.user, "descendants")
    assert [entry for page in pages for entry in page] == down
    assert asked(cloud, base, "descendants", user_of(a_project()))["descendants"] == []
    assert len(asked(cloud, base, "descendants")["descendants"]) == 4


def test_invisible_image_is_not_found(cloud: Cloud) -> None:
    server = new_server()
    start(cloud, server, a_public_image(cloud))
    image_id = cloud.create(server)
    for what in ("ancestry", "descendants"):
        for unseen, headers in ((image_id, user_of(a_project())), (new_uuid(), ADMIN)):
            answer = cloud.call("GET", f"/v2/images/{unseen}/{what}", headers)
            assert answer.status == 404
            assert answer.json["error"]["code"] == "image.not-found"


def test_cycle_ends_the_chain_and_is_reported(cloud: Cloud) -> None:
    server = new_server()
    other = new_server(project=server.project)
    images = [cloud.create(server), cloud.create(other)]
    start(cloud, server, images[1])
    start(cloud, other, images[0])
    up = asked(cloud, images[0], "ancestry")
    assert [entry["image_id"] for entry in up["ancestry"]] == [images[1]]
    assert up["cycle"] is True
    assert "next" not in up
    down = asked(cloud, images[0], "descendants")
    assert [entry["image_id"] for entry in down["descendants"]] == [images[1]]
    assert down["cycle"] is True


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
@pytest.mark.parametrize(("tail", "length"), [(0, 3), (2, 1), (3, 4), (5, 2)])
def test_cycle_above_ends_the_chain_for_every_page_size(
    cloud: Cloud, tail: int, length: int, limit: int
) -> None:
    project = a_project()
    servers = [new_server(project=project) for _ in range(tail + length)]
    images = [cloud.create(server) for server in servers]
    for number, server in enumerate(servers):
        above = number + 1 if number + 1 < len(servers) else tail
        start(cloud, server, images[above])
    pages, next = [], f"/v2/images/{images[0]}/ancestry?limit={limit}"
    while next:
        answer = cloud.call("GET", next, ADMIN)
        pages.append(answer.json)
        next = answer.json.get("next")
        assert len(pages) < 40
    assert pages[-1]["cycle"] is True
    found = [entry["image_id"] for page in pages for entry in page["ancestry"]]
    assert found[: len(images) - 1] == images[1:]
    assert set(found) <= set(images)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("ancestry?depth=1", "parameter.unknown"),
        ("ancestry?marker=x", "marker.unknown"),
        ("descendants?marker=eHx5", "marker.unknown"),
        ("descendants?depth=0", "parameter.malformed"),
        ("descendants?depth=x", "parameter.malformed"),
        ("descendants?kind=boot", "kind.unknown"),
        ("descendants?limit=0", "limit.malformed"),
    ],
)
def test_malformed_lineage_request_is_refused(cloud: Cloud, what: str, code: str) -> None:
    answer = cloud.call("GET", f"/v2/images/{new_uuid()}/{what}", ADMIN)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


def test_marker_of_a_removed_image_is_refused(cloud: Cloud) -> None:
    images = a_chain(cloud, 3, a_project())
    next = asked(cloud, images[0], "descendants?limit=1")["next"]
    (made,) = (r for r in cloud.relations(image_id=images[1]) if r["kind"] == "snapshot")
    service = new_server(project=made["project_id"]).service
    assert cloud.call("DELETE", made["self"], service).status == 204
    answer = cloud.call("GET", next, ADMIN)
    assert (answer.status, answer.json["error"]["code"]) == (400, "marker.unknown")


@pytest.mark.parametrize(
    ("what", "rest"),
    [("ancestry", ("11111111-1111-4111-8111-111111111111", "1")), ("descendants", ("2", ""))],
)
def test_forged_marker_reveals_no_image_of_others(
    cloud: Cloud, what: str, rest: tuple[str, ...]
) -> None:
    stranger = new_server()
    own = cloud.create(stranger)
    others = [*a_chain(cloud, 2, a_project()), cloud.create(new_server()), new_uuid()]
    refusals = []
    for image_id in others:
        path = f"/v2/images/{own}/{what}?marker={paging.encode_marker(image_id, *rest)}"
        answer = cloud.call("GET", path, stranger.user)
        assert answer.status == 400, image_id
        refusals.append(answer.json["error"] | {"request_id": None})
    assert refusals[0]["code"] == "marker.unknown"
    assert all(refusal == refusals[0] for refusal in refusals)


def test_forged_marker_stays_on_visible_links(cloud: Cloud) -> None:
    project = a_project()
    images = a_chain(cloud, 3, project)
    other = cloud.create(new_server(project=project))
    marker = paging.encode_marker(images[2], images[2], "1")
    found = asked(cloud, other, f"ancestry?marker={marker}", user_of(project))
    assert found["ancestry"] == asked(cloud, images[2], "ancestry", user_of(project))["ancestry"]
    path = f"/v2/images/{new_uuid()}/ancestry?marker={marker}"
    assert cloud.call("GET", path, user_of(project)).status == 404


def test_only_get_is_allowed(cloud: Cloud) -> None:
    answer = cloud.call("POST", f"/v2/images/{new_uuid()}/ancestry", ADMIN, {})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
