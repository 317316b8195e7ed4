"""Images of shelved servers, with the real Glance."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from related_images.db import Database
from related_images.db.notifications import Running, store
from related_images.model import InstanceRef
from related_images.validation import parse_time
from tests.filters import filtering, migrated
from tests.functional.cloud import (
    ADMIN,
    SERVICE_TOKEN,
    Cloud,
    Server,
    a_project,
    new_server,
    user_of,
)
from tests.functional.test_lineage import start

SHELVED = {"X-Relation-Kind": "shelved"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return migrated(tmp_path_factory.mktemp("shelved"))


@pytest.fixture(scope="module")
def guarded(cloud: Cloud, url: str) -> Cloud:
    return Cloud(filtering(cloud.bare, url, guard="in-use"), cloud.bare)


def shelve(cloud: Cloud, server: Server, **headers: str) -> str:
    """Create the image as Nova does, and return its ID."""
    headers = server.service | server.headers | SHELVED | headers
    answer = cloud.call("POST", "/v2/images", headers, {"name": "web-1-shelved"})
    assert (answer.status, answer.headers["X-Relation-Recorded"]) == (201, "shelved")
    return str(answer.json["id"])


def unshelve(url: str, server: Server, at: datetime) -> None:
    """Record that the server was unshelved, as ``related-images listen`` does."""
    database = Database(url, 10)
    store(database, [Running(InstanceRef(server.installation, server.id), server.project, at)])
    database.close()


def delete(cloud: Cloud, image_id: str, headers: dict[str, str]) -> Any:
    return cloud.call("DELETE", f"/v2/images/{image_id}", headers)


def bind(cloud: Cloud, server: Server, *users: str) -> None:
    body = {
        "uuid": server.installation,
        "name": server.installation,
        "service_users": [{"user_id": user} for user in users],
    }
    assert cloud.call("POST", "/v2/installations", ADMIN, body).status == 201


def relation(cloud: Cloud, image_id: str) -> dict[str, Any]:
    (row,) = cloud.relations(image_id=image_id, kind="shelved")
    return row


def after(row: dict[str, Any]) -> datetime:
    """Return a time after the relation was recorded."""
    return parse_time("created_at", row["created_at"]) + timedelta(seconds=1)


def test_a_shelved_image_is_in_the_lists_of_images_made_from_the_server(guarded: Cloud) -> None:
    server = new_server()
    image_id = shelve(guarded, server)
    assert guarded.image_ids(server.user, **server.query) == [image_id]
    assert guarded.image_ids(server.user, **server.query, relation_kind="shelved") == [image_id]
    assert guarded.image_ids(server.user, **server.query, relation_kind="backup") == []
    path = f"/v2/instances/{server.installation}/{server.id}"
    shown = guarded.call("GET", path, server.user).json
    assert shown["images"]["shelved"]["latest_image_id"] == image_id


def test_only_its_nova_deletes_the_image_of_a_shelved_server(guarded: Cloud) -> None:
    server = new_server()
    bind(guarded, server, "nova")
    image_id = shelve(guarded, server)
    for caller in (server.user, ADMIN, server.service | {"X-Service-User-Id": "cinder"}):
        refused = delete(guarded, image_id, caller)
        assert (refused.status, refused.json["error"]["code"]) == (409, "image.in-use")
        assert (
            f"1 shelved server ({server.id} of {server.installation})"
            in (refused.json["error"]["message"])
        )
    assert relation(guarded, image_id)["ended_at"] is None
    assert delete(guarded, image_id, server.service).status == 204
    row = relation(guarded, image_id)
    assert row["ended_at"] == row["image_deleted_at"] is not None


@pytest.mark.parametrize(
    "unconfirmed",
    [
        {"X-Service-Identity-Status": "Invalid"},
        {"X-Service-Roles": "member"},
        {"X-Service-User-Id": "mallory"},
    ],
)
def test_a_token_of_another_role_or_user_is_not_a_token_of_nova(
    guarded: Cloud, unconfirmed: dict[str, str]
) -> None:
    server = new_server()
    bind(guarded, server, "nova")
    image_id = shelve(guarded, server)
    assert delete(guarded, image_id, server.service | unconfirmed).status == 409


def test_a_recording_role_of_the_user_itself_does_not_pass(guarded: Cloud) -> None:
    server = new_server()
    image_id = shelve(guarded, server)
    own = server.user | {"X-Roles": "member,reader,service", "X-User-Id": "nova"}
    assert delete(guarded, image_id, own).status == 409


def test_any_service_deletes_the_image_of_an_installation_that_is_not_bound(
    guarded: Cloud,
) -> None:
    server = new_server()
    image_id = shelve(guarded, server)
    service = server.user | SERVICE_TOKEN | {"X-Service-User-Id": "any"}
    assert delete(guarded, image_id, service).status == 204


def test_servers_started_from_the_image_protect_it_from_nova(guarded: Cloud) -> None:
    server, other = new_server(), new_server()
    bind(guarded, server, "nova")
    image_id = shelve(guarded, server)
    start(guarded, Server(other.installation, other.id, server.project), image_id)
    refused = delete(guarded, image_id, server.service)
    assert refused.status == 409
    assert f"used by 1 live server ({other.id} of" in refused.json["error"]["message"]


def test_an_image_that_nova_left_behind_is_listed_and_may_be_deleted(
    guarded: Cloud, url: str
) -> None:
    """nova-compute sent no service token, so that Glance refused its deletion."""
    server = new_server()
    image_id = shelve(guarded, server)
    assert delete(guarded, image_id, server.user).status == 409
    unshelve(url, server, ended_at := after(relation(guarded, image_id)))
    mine = guarded.pages("/v2/relations?leftover=true", server.user, "relations")
    (row,) = [row for page in mine for row in page]
    assert (row["image_id"], parse_time("", row["ended_at"])) == (image_id, ended_at)
    assert guarded.relations(leftover="true", image_id=image_id) == [row]
    stranger = user_of(a_project())
    assert guarded.pages("/v2/relations?leftover=true", stranger, "relations") == [[]]
    assert delete(guarded, image_id, server.user).status == 204
    assert guarded.relations(leftover="true", image_id=image_id) == []


def test_a_deleted_server_does_not_need_the_image(guarded: Cloud) -> None:
    server = new_server()
    image_id = shelve(guarded, server)
    path = f"/v2/instances/{server.installation}/{server.id}"
    assert guarded.call("DELETE", path, server.service).status == 204
    assert [row["image_id"] for row in guarded.relations(leftover="true", **server.query)] == [
        image_id
    ]
    assert delete(guarded, image_id, server.user).status == 204


def test_volumes_are_not_shelved(guarded: Cloud) -> None:
    server = new_server()
    headers = server.service | server.headers | SHELVED | {"X-Resource-Type": "volume"}
    refused = guarded.call("POST", "/v2/images", headers, {"name": "n"})
    assert (refused.status, refused.json["error"]["code"]) == (400, "kind.unknown")
    body = {
        "installation_uuid": server.installation,
        "instance_id": server.id,
        "resource_type": "volume",
        "image_id": guarded.create(server),
        "kind": "shelved",
    }
    assert guarded.call("POST", "/v2/relations", server.service, body).status == 400


@pytest.mark.parametrize("value", ["yes", "1", ""])
def test_a_malformed_filter_is_refused(guarded: Cloud, value: str) -> None:
    answer = guarded.call("GET", f"/v2/relations?leftover={value}", ADMIN)
    assert answer.status == 400
    assert "leftover=" in answer.json["error"]["message"]
