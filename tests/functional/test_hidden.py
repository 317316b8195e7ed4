"""Relations that a caller does not see change no byte of its responses."""

from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import urlencode

import pytest

from related_images.middleware import paging
from tests.filters import new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud
from tests.functional.test_visibility import PROJECTS, World

pytestmark = pytest.mark.slow

Answered = tuple[int, Any, str | None]

CALLERS = ("server-owner", "image-owner", "both", "stranger")


def lists(world: World, images: list[str], servers: list[str]) -> Iterator[str]:
    filters: list[dict[str, str]] = [{}, {"label": "daily"}, {"in_use": "true"}]
    filters += [{"in_use": "false"}, *({"kind": kind} for kind in ("boot", "snapshot", "backup"))]
    filters += [{"image_id": image} for image in images]
    filters += [{"instance_id": server} for server in servers]
    filters += [{"project_id": world.project(name)} for name in PROJECTS]
    for what, query in product(("relations", "instances"), filters):
        yield f"/v2/{what}?{urlencode({'installation_uuid': world.installation, **query})}"
    for kind, since in product(("backup", "snapshot", "boot"), ("2000-01-01", "2090-01-01")):
        asked = {"installation_uuid": world.installation, "kind": kind, "latest_before": since}
        yield f"/v2/instances?{urlencode(asked)}"


def of_images(images: list[str]) -> Iterator[str]:
    yield f"/v2/usages?image_ids={','.join(images)}"
    for image in images:
        yield f"/v2/images/{image}/relations"
        for other in images:
            climb, place = (
                paging.encode_marker(other, other, "1"),
                paging.encode_marker(other, "1", ""),
            )
            yield f"/v2/images/{image}/ancestry?marker={climb}"
            yield f"/v2/images/{image}/descendants?marker={place}"
            for state in ("i", "", "r"):
                marker = paging.encode_marker(other, "1", state, "", "")
                yield f"/v2/images/{image}/dependents?marker={marker}"
        yield f"/v2/images/{image}/ancestry"
        yield f"/v2/images/{image}/descendants?limit=1"
        for query in ("", "?limit=1", "?live=false", "/summary", "/summary?group_by=project"):
            yield f"/v2/images/{image}/dependents{query}"


def of_servers(world: World, images: list[str], servers: list[str]) -> Iterator[str]:
    for server in servers:
        yield f"/v2/instances/{world.installation}/{server}"
        for image in images:
            text = f"server/{world.installation}/{server}"
            for way, after in ((text, ""), ("", text)):
                marker = paging.encode_marker(image, "0", "i", way, after)
                yield f"/v2/images/{image}/dependents?marker={marker}"
        marker = paging.encode_marker(world.installation, server, paging.NO_TIME)
        yield f"/v2/instances?installation_uuid={world.installation}&marker={marker}"
        more: list[dict[str, str]] = [{}, {"relation_kind": "boot"}, {"relation_label": "daily"}]
        more += [{"limit": "1"}, {"id": images[0]}, {"marker": images[0]}]
        asked = {"installation_uuid": world.installation, "instance_id": server}
        for query in more:
            yield f"/v2/images?{urlencode({**asked, 'visibility': 'all', **query})}"


def answered(world: World, caller: str, path: str) -> Answered:
    answer = world.ask(caller, path)
    is_of_glance = path.startswith("/v2/images?") or answer.status == 200
    body = answer.body if is_of_glance else {**answer.json["error"], "request_id": None}
    return answer.status, body, answer.headers["X-Relation-Filters-Applied"]


def test_hidden_relations_change_no_response(cloud: Cloud) -> None:
    world = World(cloud)
    image = {"name": "base", "owner": world.project("base-owner"), "visibility": "public"}
    base, fresh = (cloud.call("POST", "/v2/images", ADMIN, image).json["id"] for _ in range(2))
    one, two, three = (f"{name}-{world.suffix}" for name in ("one", "two", "three"))
    world.start(one, "server-owner", base, "base-owner")
    public = world.make(one, "server-owner", "image-owner", "snapshot", "public")
    world.make(one, "server-owner", "server-owner", "backup", "private", label="daily")
    world.start(two, "both", public, "image-owner")
    world.make(two, "both", "both", "snapshot", "private", label="daily")
    images, servers = [base, fresh, public, new_uuid()], [one, two, three]
    asked = [*lists(world, images, servers), *of_images(images)]
    asked += of_servers(world, images, servers)
    # used_by_others of the public image is true for its owner from the beginning
    before = {(caller, path): answered(world, caller, path) for caller in CALLERS for path in asked}
    world.start(three, "hidden", base, "base-owner")
    world.start(f"{three}-1", "hidden", fresh, "base-owner")
    world.start(three, "hidden", public, "image-owner")
    world.make(three, "hidden", "hidden", "snapshot", "private", label="daily")
    world.make(one, "server-owner", "hidden", "backup", "private", label="daily")
    for number in range(3):
        world.make(f"{three}-{number}", "hidden", "hidden", "backup", "private", label="daily")
    path = f"/v2/instances/{world.installation}/{three}-0"
    assert cloud.call("DELETE", path, ADMIN | SERVICE_TOKEN).status == 204
    after = {(caller, path): answered(world, caller, path) for caller, path in before}
    assert {key: response for key, response in after.items() if response != before[key]} == {}
