"""Use of images, with the real Glance."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.filters import filtering, migrated
from tests.functional.cloud import (
    ADMIN,
    SERVICE_TOKEN,
    Cloud,
    Server,
    glance_option,
    new_server,
    user_of,
)
from tests.functional.test_guard import FailingGlance
from tests.functional.test_lineage import a_public_image, start

SOME = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"


def usage(cloud: Cloud, *image_ids: str, headers: dict[str, str] = ADMIN) -> Any:
    answer = cloud.call("GET", f"/v2/usages?image_ids={','.join(image_ids)}", headers)
    assert answer.status == 200, answer.body
    return answer.json


def end(cloud: Cloud, server: Server) -> None:
    path = f"/v2/instances/{server.installation}/{server.id}"
    assert cloud.call("DELETE", path, server.service).status == 204


def test_usages_are_in_the_requested_order(cloud: Cloud) -> None:
    server, base, unused = new_server(), a_public_image(cloud), a_public_image(cloud)
    start(cloud, server, base)
    leases = {"count": 0, "latest_expires_at": None}
    certain: dict[str, Any] = {"unused_since": None, "leases": leases, "gaps": [], "more_gaps": 0}
    certain |= {"made_from": 0, "shelved": 0}
    never = {"instances": 0, "live_instances": 0, "used_by_others": False, "state": "unused"}
    once = {"instances": 1, "live_instances": 1, "used_by_others": True, "state": "used"}
    assert usage(cloud, unused, base, unused) == {
        "usages": [{"image_id": unused, **never, **certain}, {"image_id": base, **once, **certain}],
        "all_projects": True,
    }
    end(cloud, server)
    (row,) = usage(cloud, base)["usages"]
    path = f"/v2/instances/{server.installation}/{server.id}"
    assert row["unused_since"] == cloud.call("GET", path, ADMIN).json["ended_at"]
    assert row["live_instances"] == 0


def test_project_counts_only_its_own_servers(cloud: Cloud) -> None:
    server, base = new_server(), a_public_image(cloud)
    start(cloud, server, base)
    start(cloud, new_server(), base)
    own = usage(cloud, base, headers=user_of(server.project))
    assert (own["usages"][0]["live_instances"], own["all_projects"]) == (1, False)
    assert usage(cloud, base)["usages"][0]["live_instances"] == 2


def others(cloud: Cloud, image_id: str, headers: dict[str, str]) -> bool | None:
    (row,) = usage(cloud, image_id, headers=headers)["usages"]
    found: bool | None = row["used_by_others"]
    return found


def shared(cloud: Cloud, owner: Server, with_whom: Server) -> str:
    image_id = cloud.create(owner, visibility="shared")
    path, body = f"/v2/images/{image_id}/members", {"member": with_whom.project}
    assert cloud.call("POST", path, owner.user, body).status == 200
    return image_id


def change(cloud: Cloud, image_id: str, headers: dict[str, str], name: str, value: Any) -> None:
    typed = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    body = json.dumps([{"op": "replace", "path": f"/{name}", "value": value}]).encode()
    answer = cloud.call("PATCH", f"/v2/images/{image_id}", headers | typed, body)
    assert answer.status == 200, answer.body


def test_owner_learns_only_that_others_use_the_image(cloud: Cloud) -> None:
    mine, theirs = new_server(), new_server()
    image_id = shared(cloud, mine, theirs)
    start(cloud, mine, image_id)
    assert others(cloud, image_id, mine.user) is False
    start(cloud, theirs, image_id)
    answer = usage(cloud, image_id, headers=mine.user)
    (row,) = answer["usages"]
    assert (row.pop("used_by_others"), row["live_instances"], row["instances"]) == (True, 1, 1)
    assert theirs.id not in str(answer)
    assert theirs.project not in str(answer)
    assert others(cloud, image_id, ADMIN) is True
    end(cloud, theirs)
    assert others(cloud, image_id, mine.user) is False


@pytest.mark.parametrize(
    ("name", "value"), [("os_hidden", True), ("visibility", "community"), ("protected", True)]
)
def test_used_by_others_covers_every_image_of_the_owner(
    cloud: Cloud, name: str, value: Any
) -> None:
    mine, theirs = new_server(), new_server()
    image_id = shared(cloud, mine, theirs)
    change(cloud, image_id, mine.user, name, value)
    start(cloud, theirs, image_id)
    assert others(cloud, image_id, mine.user) is True


def test_server_of_unknown_project_counts_as_of_others(cloud: Cloud) -> None:
    mine = new_server()
    image_id = cloud.create(mine)
    body = {**new_server().query, "image_id": image_id, "kind": "boot"}
    assert cloud.call("POST", "/v2/relations", ADMIN | SERVICE_TOKEN, body).status == 201
    (boot,) = cloud.relations(image_id=image_id, kind="boot")
    assert others(cloud, image_id, mine.user) is (boot["project_id"] != mine.project)


def test_other_projects_learn_nothing_of_used_by_others(cloud: Cloud) -> None:
    owner, user, stranger = new_server(), new_server(), new_server()
    used, unused = shared(cloud, owner, user), shared(cloud, owner, user)
    public = a_public_image(cloud)
    for image_id in (used, public):
        start(cloud, user, image_id)
    for image_id in (used, unused, public, SOME):
        (row,) = usage(cloud, image_id, headers=stranger.user)["usages"]
        nothing: dict[str, Any] = {"instances": 0, "live_instances": 0, "unused_since": None}
        nothing |= {"leases": {"count": 0, "latest_expires_at": None}}
        nothing |= {"used_by_others": False, "state": "unused", "gaps": [], "more_gaps": 0}
        nothing |= {"made_from": 0, "shelved": 0}
        assert row == {"image_id": image_id, **nothing}
    assert others(cloud, used, user.user) is False


def test_usages_of_many_images_with_small_glance_pages(
    cloud: Cloud,
) -> None:
    mine, theirs = new_server(), new_server()
    images = [shared(cloud, mine, theirs) for _ in range(5)]
    start(cloud, theirs, images[0])
    start(cloud, theirs, images[3])
    with glance_option("api_limit_max", 2):
        rows = usage(cloud, *images, headers=mine.user)["usages"]
    assert [row["used_by_others"] for row in rows] == [True, False, False, True, False]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "403 Forbidden", "200 OK"])
def test_used_by_others_is_null_if_glance_does_not_return_the_owner(
    cloud: Cloud, tmp_path: Path, status: str
) -> None:
    glance = FailingGlance(cloud.bare)
    before = Cloud(filtering(glance, migrated(tmp_path)), cloud.bare)
    server = new_server()
    image_id, used = before.create(server), before.create(server)
    start(before, server, used)
    glance.status = status
    assert others(before, image_id, server.user) is None
    assert others(before, used, ADMIN) is None
    assert others(before, image_id, ADMIN) is False  # nobody ever used it, whoever owns it


@pytest.mark.parametrize("number", [1, 1000])
def test_the_ids_of_many_images_are_in_the_body(cloud: Cloud, number: int) -> None:
    mine, theirs = new_server(), new_server()
    image_id = shared(cloud, mine, theirs)
    start(cloud, theirs, image_id)
    asked = {"image_ids": [image_id, *(str(uuid4()) for _ in range(number - 1)), image_id][:1000]}
    for headers in (mine.user, theirs.user, ADMIN):
        answer = cloud.call("POST", "/v2/usages", headers, asked)
        assert answer.status == 200, answer.body
        rows = answer.json["usages"]
        assert [row["image_id"] for row in rows] == list(dict.fromkeys(asked["image_ids"]))
        assert rows[:1] == usage(cloud, image_id, headers=headers)["usages"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "body.field-invalid"),
        ({"image_ids": []}, "body.field-invalid"),
        ({"image_ids": SOME}, "body.field-invalid"),
        ({"image_ids": [SOME] * 1001}, "body.field-invalid"),
        ({"image_ids": [SOME], "limit": 3}, "body.field-invalid"),
        ({"image_ids": ["x"]}, "image.id-malformed"),
        ({"image_ids": [[SOME]]}, "image.id-malformed"),
        ({"image_ids": [None]}, "image.id-malformed"),
    ],
)
def test_malformed_bodies_are_refused(cloud: Cloud, body: Any, code: str) -> None:
    answer = cloud.call("POST", "/v2/usages", ADMIN, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "parameter.malformed"),
        ("image_ids=", "image.id-malformed"),
        ("image_ids=x", "image.id-malformed"),
        (f"image_ids={SOME},", "image.id-malformed"),
        (f"image_ids={','.join([SOME] * 101)}", "parameter.malformed"),
        (f"image_ids={SOME}&limit=3", "parameter.unknown"),
        (f"image_ids={SOME}&image_ids={SOME}", "parameter.malformed"),
    ],
)
def test_malformed_usage_requests_are_refused(cloud: Cloud, query: str, code: str) -> None:
    answer = cloud.call("GET", f"/v2/usages?{query}", ADMIN)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


@pytest.mark.parametrize("path", ["/v2/relations", "/v2/instances"])
def test_in_use_restricts_lists(cloud: Cloud, path: str) -> None:
    alive, gone, base = new_server(), new_server(), a_public_image(cloud)
    for server in (alive, gone):
        start(cloud, server, base)
    end(cloud, gone)

    def found(value: str) -> list[str]:
        query = f"{path}?image_id={base}&in_use={value}"
        rows = cloud.call("GET", query, ADMIN).json[path.rpartition("/")[2]]
        return [row["instance_id"] for row in rows]

    assert (found("true"), found("false")) == ([alive.id], [gone.id])
    refused = cloud.call("GET", f"{path}?in_use=yes", ADMIN)
    assert "give true or false" in refused.json["error"]["message"]
