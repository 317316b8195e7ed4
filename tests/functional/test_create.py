"""Images created with and without instance headers."""

import json
from typing import Any

import pytest

from tests import wsgi
from tests.filters import instance_headers, new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, a_project, new_server, user_of
from tests.servers import Answer


def test_image_created_with_instance_headers_is_recorded(cloud: Cloud) -> None:
    server = new_server()
    answer = cloud.try_to_create(server)
    assert answer.status == 201
    assert answer.headers["X-Relation-Recorded"] == "snapshot"
    assert "OpenStack-image-import-methods" in answer.headers
    assert f"/v2/images/{answer.json['id']}" in str(answer.headers["Location"])
    (relation,) = cloud.relations(**server.query)
    assert relation["image_id"] == answer.json["id"]
    assert relation["project_id"] == server.project
    assert (relation["kind"], relation["source"], relation["label"]) == (
        *("snapshot", "service", None),
    )


def test_kind_and_label_are_recorded(cloud: Cloud) -> None:
    server = new_server()
    sent_headers = instance_headers(server.installation, server.id, kind="backup", label="daily")
    answer = cloud.call("POST", "/v2/images", server.service | sent_headers, {"name": "n"})
    assert answer.headers["X-Relation-Recorded"] == "backup"
    (relation,) = cloud.relations(**server.query)
    assert (relation["kind"], relation["label"]) == ("backup", "daily")


SNAPSHOTS = [new_uuid(), new_uuid()]


def mapping(*snapshot_ids: Any) -> str:
    """What Nova writes into the properties of an image of a server on volumes."""
    local = {"source_type": "blank", "destination_type": "local", "snapshot_id": None}
    volumes = [
        {"source_type": "snapshot", "destination_type": "volume", "snapshot_id": snapshot_id}
        for snapshot_id in snapshot_ids
    ]
    return json.dumps([*volumes, local])


@pytest.mark.parametrize(
    ("properties", "recorded"),
    [
        ({"block_device_mapping": mapping(*SNAPSHOTS)}, SNAPSHOTS),
        ({"block_device_mapping": mapping(*SNAPSHOTS, SNAPSHOTS[0])}, SNAPSHOTS),
        # Nova writes image_type into every other image, whose mapping a user may have given
        ({"block_device_mapping": mapping(*SNAPSHOTS), "image_type": "snapshot"}, []),
        ({"block_device_mapping": mapping("no UUID")}, []),
        ({"block_device_mapping": mapping(*(new_uuid() for _ in range(101)))}, []),
        ({"block_device_mapping": "[5]"}, []),
        ({"block_device_mapping": "no JSON"}, []),
        ({}, []),
    ],
)
def test_the_volume_snapshots_of_an_image_are_recorded(
    cloud: Cloud, properties: dict[str, str], recorded: list[str]
) -> None:
    server = new_server()
    image_id = cloud.create(server, **properties)
    (relation,) = cloud.relations(**server.query)
    assert relation["volume_snapshot_ids"] == recorded
    (shown,) = cloud.relations(image_id=image_id)
    assert shown["volume_snapshot_ids"] == recorded


def test_id_in_the_body_is_kept(cloud: Cloud) -> None:
    server, image_id = new_server(), new_uuid()
    assert cloud.create(server, id=image_id) == image_id
    assert cloud.image_ids(server.user | server.headers) == [image_id]


def test_relation_belongs_to_the_owner_that_an_admin_sets(cloud: Cloud) -> None:
    server = new_server()
    answer = cloud.call(
        "POST",
        "/v2/images",
        ADMIN | SERVICE_TOKEN | server.headers,
        {"name": "n", "owner": server.project},
    )
    assert (answer.status, answer.json["owner"]) == (201, server.project)
    (relation,) = cloud.relations(**server.query)
    assert relation["project_id"] == server.project
    assert cloud.image_ids(server.user | server.headers) == [answer.json["id"]]


def test_other_callers_cannot_set_an_owner(cloud: Cloud) -> None:
    server = new_server()
    assert cloud.try_to_create(server, owner=a_project()).status == 403
    assert cloud.relations(**server.query) == []


def test_service_with_its_own_token_may_record(cloud: Cloud) -> None:
    server = new_server()
    service = wsgi.identity("nova", server.project, "service", "member")
    answer = cloud.call("POST", "/v2/images", service | server.headers, {"name": "n"})
    assert answer.headers["X-Relation-Recorded"] == "snapshot"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"X-Service-Roles": "service"},
        {"X-Service-Roles": "service", "X-Service-Identity-Status": "Invalid"},
        {"X-Service-Roles": "member", "X-Service-Identity-Status": "Confirmed"},
        {"X-Roles": "services,myservice"},
    ],
)
def test_other_callers_may_not_record_and_no_image_is_created(
    cloud: Cloud, more: dict[str, str]
) -> None:
    server = new_server()
    answer = cloud.call("POST", "/v2/images", server.user | more | server.headers, {"name": "n"})
    assert answer.status == 403
    error = answer.json["error"]
    assert error["code"] == "relation.forbidden"
    assert error["request_id"].startswith("req-")
    assert cloud.total(server.project) == 0
    assert cloud.relations(**server.query) == []


def test_boot_is_refused_for_a_new_image(cloud: Cloud) -> None:
    server = new_server()
    sent_headers = instance_headers(server.installation, server.id, kind="boot")
    answer = cloud.call("POST", "/v2/images", server.service | sent_headers, {"name": "n"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "kind.unknown")
    assert cloud.total(server.project) == 0


def test_nothing_is_recorded_without_instance_headers(cloud: Cloud) -> None:
    server = new_server()
    answer = cloud.call(
        "POST", "/v2/images", server.service, {"name": "n", "instance_uuid": server.id}
    )
    assert answer.status == 201
    assert "X-Relation-Recorded" not in answer.headers
    assert cloud.relations(image_id=answer.json["id"]) == []


REFUSED: list[tuple[Any, int]] = [
    ({"id": new_uuid(), "visibility": "everybody"}, 400),
    ({"visibility": "public"}, 403),
    ({"status": "active"}, 403),
    ({"property": None}, 400),
    ({"os_glance_x": "y"}, 403),
    ({"name": "x" * 256}, 400),
]


@pytest.mark.parametrize(("fields", "status"), REFUSED)
def test_relation_is_rolled_back_if_glance_refuses_the_image(
    cloud: Cloud, fields: dict[str, Any], status: int
) -> None:
    server = new_server()
    answer = cloud.try_to_create(server, **fields)
    assert answer.status == status
    assert "X-Relation-Recorded" not in answer.headers
    assert cloud.relations(**server.query) == []
    assert (
        cloud.call("GET", f"/v2/instances/{server.installation}/{server.id}", ADMIN).status == 404
    )


def bare_answer(cloud: Cloud, server_headers: dict[str, str], body: Any) -> Answer:
    return wsgi.call(cloud.bare, "POST", "/v2/images", server_headers, body)


@pytest.mark.parametrize("fields", [fields for fields, _ in REFUSED])
def test_refusal_of_glance_passes_unchanged(cloud: Cloud, fields: dict[str, Any]) -> None:
    server = new_server()
    body = {"name": "n"} | fields
    through = cloud.call("POST", "/v2/images", server.service | server.headers, body)
    assert through.body == bare_answer(cloud, server.service, body).body


def test_taken_id_keeps_the_relation_of_its_image(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server)
    assert cloud.try_to_create(server, id=image_id).status == 409
    assert [relation["image_id"] for relation in cloud.relations(**server.query)] == [image_id]


def test_taken_id_makes_no_relation_to_another_server(cloud: Cloud) -> None:
    server, other = new_server(), new_server()
    image_id = cloud.create(server)
    assert cloud.try_to_create(other, id=image_id).status == 409
    assert cloud.relations(**other.query) == []
    (relation,) = cloud.relations(image_id=image_id)
    assert relation["instance_id"] == server.id


def test_taken_id_makes_no_relation_of_another_kind(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server)
    sent_headers = instance_headers(server.installation, server.id, kind="backup")
    assert (
        cloud.call("POST", "/v2/images", server.service | sent_headers, {"id": image_id}).status
        == 409
    )
    assert [relation["kind"] for relation in cloud.relations(**server.query)] == ["snapshot"]


def test_image_stays_marked_deleted_if_its_id_is_refused(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server)
    assert cloud.call("DELETE", f"/v2/images/{image_id}", server.user).status == 204
    (before,) = cloud.relations(**server.query)
    assert cloud.try_to_create(server, id=image_id).status == 409
    assert cloud.relations(**server.query) == [before]
    assert before["image_deleted_at"] is not None


def test_id_in_upper_case_is_refused(cloud: Cloud) -> None:
    server = new_server()
    answer = cloud.try_to_create(server, id=new_uuid().upper())
    assert (answer.status, answer.json["error"]["code"]) == (400, "image.id-malformed")
    assert cloud.total(server.project) == 0


def test_two_installations_may_have_the_same_server_id(cloud: Cloud) -> None:
    one = new_server()
    two = new_server(id=one.id, project=one.project)
    first, second = cloud.create(one), cloud.create(two)
    assert cloud.image_ids(one.user | one.headers) == [first]
    assert cloud.image_ids(one.user | two.headers) == [second]


def test_installation_uuid_ignores_case(cloud: Cloud) -> None:
    server = new_server()
    sent_headers = instance_headers(server.installation.upper(), server.id)
    answer = cloud.call("POST", "/v2/images", server.service | sent_headers, {"name": "n"})
    assert cloud.image_ids(server.user | server.headers) == [answer.json["id"]]


def test_repeated_field_is_read_the_same_by_filter_and_glance(cloud: Cloud) -> None:
    server, first, last = new_server(), new_uuid(), new_uuid()
    body = f'{{"id": "{first}", "name": "n", "id": "{last}"}}'.encode()
    answer = cloud.call("POST", "/v2/images", server.service | server.headers, body)
    assert answer.status == 201
    assert [relation["image_id"] for relation in cloud.relations(**server.query)] == [last]
    assert answer.json["id"] == last
    assert not cloud.exists(first)


def test_unmodified_clients_work_unchanged(cloud: Cloud) -> None:
    user = user_of(a_project())
    for method, path, body in (
        ("GET", "/", None),
        ("GET", "/versions", None),
        ("GET", "/v2/images", None),
        ("GET", "/v2/images?instance_id=mine", None),
        ("GET", "/v2/images/nothing", None),
        ("GET", "/v2/schemas/images", None),
        ("GET", "/v2/info/import", None),
        ("PUT", "/v2/images", b"{}"),
        ("POST", "/v2/images", b"not json"),
        ("DELETE", f"/v2/images/{new_uuid()}", None),
        ("PATCH", f"/v2/images/{new_uuid()}", json.dumps([]).encode()),
    ):
        ours = cloud.call(method, path, user, body)
        theirs = wsgi.call(cloud.bare, method, path, user, body)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        differing = {"x-openstack-request-id", "date"}
        assert [item for item in ours.headers.items() if item[0].lower() not in differing] == [
            item for item in theirs.headers.items() if item[0].lower() not in differing
        ]
