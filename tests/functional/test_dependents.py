"""Dependents with the real Glance: fields, pages, projects, the summary, errors."""

from typing import Any

import pytest

from tests.filters import new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, a_project, new_server, user_of
from tests.functional.test_lineage import a_chain, a_public_image, asked, start


def originate(
    cloud: Cloud, installation: str, ref: tuple[str, str], source: tuple[str, str], project: str
) -> None:
    """Record that a resource, as type and ID, comes from another one."""
    named = [
        {"installation_uuid": installation, "resource_type": type, "instance_id": id}
        for type, id in (ref, source)
    ]
    one = {**named[0], "source": named[1], "since": "2026-01-31T02:00:00Z", "project_id": project}
    answer = cloud.call("POST", "/v2/origins", ADMIN | SERVICE_TOKEN, {"origins": [one]})
    assert answer.json["origins"][0]["status"] == 201, answer.body


def numbers(live: int = 0, ended: int = 0, direct: int = 0, indirect: int = 0) -> dict[str, int]:
    return {"live": live, "ended": ended, "direct": direct, "indirect": indirect}


def test_a_server_on_a_volume_made_from_the_image_is_a_dependent(cloud: Cloud) -> None:
    base, server = a_public_image(cloud), new_server()
    volume = new_uuid()
    start(
        cloud, new_server(server.installation, volume, server.project), base, resource_type="volume"
    )
    originate(cloud, server.installation, ("server", server.id), ("volume", volume), server.project)
    common = {
        "installation_uuid": server.installation,
        "image_id": base,
        "kind": "boot",
        "depth": 1,
        "project_id": server.project,
        "ended_at": None,
        "expires_at": None,
    }
    via = {
        "installation_uuid": server.installation,
        "resource_type": "volume",
        "instance_id": volume,
    }
    for headers in (ADMIN, server.user):
        assert asked(cloud, base, "dependents", headers) == {
            "image_id": base,
            "dependents": [
                {**common, "resource_type": "volume", "instance_id": volume, "via": []},
                {**common, "resource_type": "server", "instance_id": server.id, "via": [via]},
            ],
            "first": f"/v2/images/{base}/dependents",
        }
        only = asked(cloud, base, "dependents?resource_type=server", headers)["dependents"]
        assert [one["instance_id"] for one in only] == [server.id]
    assert asked(cloud, base, "dependents", user_of(a_project()))["dependents"] == []
    gone = f"/v2/instances/{server.installation}/{volume}?resource_type=volume"
    assert cloud.call("DELETE", gone, server.service).status == 204
    (left,) = asked(cloud, base, "dependents", server.user)["dependents"]
    assert left["instance_id"] == server.id
    (ended,) = asked(cloud, base, "dependents?live=false", server.user)["dependents"]
    assert (ended["instance_id"], ended["ended_at"] is None) == (volume, False)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_lead_through_deleted_images_and_ended_servers(cloud: Cloud, limit: int) -> None:
    project = a_project()
    images = a_chain(cloud, 4, project)
    servers = [new_server(project=project) for _ in images]
    for server, image in zip(servers, images, strict=True):
        start(cloud, server, image)
    owner = user_of(project)
    assert cloud.call("DELETE", f"/v2/images/{images[2]}", owner).status == 204
    ended = f"/v2/instances/{servers[1].installation}/{servers[1].id}"
    assert cloud.call("DELETE", ended, servers[1].service).status == 204
    for headers in (ADMIN, owner):
        path = f"/v2/images/{images[0]}/dependents?project_id={project}&limit={limit}"
        rows = [row for page in cloud.pages(path, headers, "dependents") for row in page]
        found = {row["instance_id"]: row["depth"] for row in rows}
        expected = {one.id: depth for depth, one in enumerate(servers, 1) if one != servers[1]}
        assert expected.items() <= found.items()
        assert len(rows) == len(found) == 8  # four of them made the images
    near = asked(cloud, images[0], "dependents?depth=1", owner)["dependents"]
    assert {row["depth"] for row in near} == {1}


def test_the_summary_counts_by_type_and_project(cloud: Cloud) -> None:
    project = a_project()
    base, made = a_chain(cloud, 1, project)
    stranger = new_server()
    start(cloud, stranger, base)
    ended = new_server(project=project)
    start(cloud, ended, made)
    path = f"/v2/instances/{ended.installation}/{ended.id}"
    assert cloud.call("DELETE", path, ended.service).status == 204
    live = new_server(project=project)
    start(cloud, live, made)
    assert asked(cloud, base, "dependents/summary") == {
        "image_id": base,
        "by_type": {"server": numbers(live=3, ended=1, direct=2, indirect=1)},
        "projects": 2,
        "used_by_others": True,
        "lower_bound": False,
        "all_projects": True,
        "state": "used",
        "gaps": [],
        "more_gaps": 0,
    }
    own = asked(cloud, base, "dependents/summary", user_of(project))
    assert own["by_type"] == {"server": numbers(live=2, ended=1, direct=1, indirect=1)}
    assert (own["projects"], own["used_by_others"], own["all_projects"]) == (1, False, False)
    pages: list[Any] = cloud.pages(
        f"/v2/images/{base}/dependents/summary?group_by=project&limit=1", ADMIN, "projects"
    )
    assert [len(page) for page in pages] == [1, 1]
    assert {row["project_id"]: row["by_type"] for page in pages for row in page} == {
        project: {"server": numbers(live=2, ended=1, direct=1, indirect=1)},
        stranger.project: {"server": numbers(live=1, direct=1)},
    }
    assert asked(cloud, made, "dependents/summary", user_of(project))["used_by_others"] is False


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("dependents?live=yes", "parameter.malformed"),
        ("dependents?depth=0", "parameter.malformed"),
        ("dependents?kind=boot", "parameter.unknown"),
        ("dependents?limit=0", "limit.malformed"),
        ("dependents?marker=x", "marker.unknown"),
        ("dependents?marker=eHx5", "marker.unknown"),
        ("dependents?resource_type=a b", "resource-type.unknown"),
        ("dependents/summary?group_by=type", "parameter.malformed"),
        ("dependents/summary?limit=5", "parameter.malformed"),
        ("dependents/summary?group_by=project&marker=x", "marker.unknown"),
        ("dependents/summary?live=true", "parameter.unknown"),
    ],
)
def test_malformed_requests_are_refused(cloud: Cloud, what: str, code: str) -> None:
    base = a_public_image(cloud)
    answer = cloud.call("GET", f"/v2/images/{base}/{what}".replace(" ", "%20"), ADMIN)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


def test_an_image_that_the_caller_does_not_see_is_not_found(cloud: Cloud) -> None:
    hidden = cloud.create(new_server())
    for what in ("dependents", "dependents/summary", "dependents/summary?group_by=project"):
        for image, headers in ((hidden, user_of(a_project())), (new_uuid(), ADMIN)):
            answer = cloud.call("GET", f"/v2/images/{image}/{what}", headers)
            assert (answer.status, answer.json["error"]["code"]) == (404, "image.not-found")
