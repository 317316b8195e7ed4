"""Several relations in one request to the real Glance."""

from typing import Any

import pytest

from related_images.middleware import glance
from tests import wsgi
from tests.filters import new_uuid
from tests.functional.cloud import SERVICE_TOKEN, Cloud, Server, new_server


def an_image(cloud: Cloud, server: Server) -> str:
    return str(cloud.call("POST", "/v2/images", server.user, {"name": "n"}).json["id"])


def start(server: Server, image_id: str, **more: Any) -> dict[str, Any]:
    owner = {"instance_project_id": server.project}
    return {**server.query, "image_id": image_id, "kind": "boot", **owner, **more}


def test_each_relation_has_a_result(cloud: Cloud) -> None:
    first = new_server()
    image_id, unknown = an_image(cloud, first), new_uuid()
    second, third = (new_server(first.installation, project=first.project) for _ in range(2))
    labelled = start(third, image_id, kind="backup", label="daily")
    given = [
        start(first, image_id),
        start(first, image_id),
        start(second, unknown),
        start(second, image_id, kind="nope"),
        labelled,
        labelled | {"label": "weekly"},
        {"image_id": image_id},
        "nonsense",
    ]
    answer = cloud.call("POST", "/v2/relations", first.service, {"relations": given})
    results = answer.json["relations"]
    assert answer.status == 200
    assert [one["status"] for one in results] == [201, 200, 404, 400, 201, 409, 400, 400]
    assert results[0]["relation"] == results[1]["relation"] == cloud.relations(**first.query)[0]
    assert results[0]["relation"]["project_id"] == first.project
    codes = [one["error"]["code"] for one in results if "error" in one]
    assert codes == [
        "image.not-found",
        "kind.unknown",
        "relation.conflict",
        "body.field-invalid",
        "body.field-invalid",
    ]
    assert cloud.relations(**second.query) == []


def test_a_hundred_relations_ask_glance_for_their_image_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, find = new_server(), glance.find_image
    image_id = an_image(cloud, first)
    asked: list[str] = []

    def count(app: Any, environ: Any, image_id: str) -> Any:
        asked.append(image_id)
        return find(app, environ, image_id)

    monkeypatch.setattr(glance, "find_image", count)
    servers = [new_server(first.installation, project=first.project) for _ in range(100)]
    body = {"relations": [start(server, image_id) for server in servers]}
    answer = cloud.call("POST", "/v2/relations", first.service, body)
    assert {one["status"] for one in answer.json["relations"]} == {201}
    assert asked == [image_id]
    recorded = cloud.relations(installation_uuid=first.installation)
    assert {row["instance_id"] for row in recorded} == {server.id for server in servers}


@pytest.mark.parametrize(
    "body",
    [
        {"relations": []},
        {"relations": {}},
        {"relations": [{}] * 101},
        {"relations": [{}], "kind": "boot"},
    ],
)
def test_a_malformed_batch_is_refused(cloud: Cloud, body: Any) -> None:
    answer = cloud.call("POST", "/v2/relations", new_server().service, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "body.field-invalid")


def test_only_a_service_records_several_relations(cloud: Cloud) -> None:
    server = new_server()
    body = {"relations": [start(server, an_image(cloud, server))]}
    refused = cloud.call("POST", "/v2/relations", server.user, body)
    assert (refused.status, refused.json["error"]["code"]) == (403, "relation.forbidden")
    # the recording role of the caller itself is enough
    service = wsgi.identity("nova", server.project, "service")
    assert cloud.call("POST", "/v2/relations", service, body).status == 200
    assert cloud.call("POST", "/v2/relations", SERVICE_TOKEN, body).status == 401
