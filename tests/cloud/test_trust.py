"""Users cannot record with forged headers, with the real keystonemiddleware and Keystone."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.plan import INSTALLATION
from tests.cloud.starting import glance_beside, nova_without_service_user
from tests.cloud.user_actions import CreatedServers
from tests.servers import Answer, ask

IMAGE: Final = {"name": "spoofed", "disk_format": "raw", "container_format": "bare"}

SERVICE: Final = {
    "X-Service-Identity-Status": "Confirmed",
    "X-Service-Roles": "service",
    "X-Service-User-Id": "{nova}",
    "X-Service-User-Name": "nova",
    "X-Service-Project-Id": "{service}",
}
CALLER: Final = {
    "X-Identity-Status": "Confirmed",
    "X-Roles": "service,admin",
    "X-User-Id": "{nova}",
    "X-User-Name": "nova",
    "X-Project-Id": "{service}",
    "X-Is-Admin-Project": "True",
}
SPOOFS: Final[Mapping[str, Mapping[str, str]]] = {
    "nothing": {},
    "a service beside": SERVICE,
    "a service itself": CALLER,
    "both": SERVICE | CALLER,
    "both in lower case": {name.lower(): text for name, text in (SERVICE | CALLER).items()},
    "both with underscores": {
        name.replace("-", "_"): text for name, text in (SERVICE | CALLER).items()
    },
    "the own token for a service's": SERVICE | {"X-Service-Token": "{alice}"},
    "no token for a service's": SERVICE | {"X-Service-Token": "nonsense"},
}
"""Headers that an ordinary user sends in addition to an ordinary token."""


@pytest.fixture(scope="module")
def names(cloud: Cloud) -> dict[str, str]:
    """Return the values of the names in braces above."""
    identity = cloud.connection("admin").identity
    ids = {
        "nova": identity.find_user("nova").id,
        "service": identity.find_project("service").id,
        "demo": identity.find_project("demo").id,
    }
    return ids | {who: cloud.token(who) for who in ("alice", "bob")}


@pytest.fixture(scope="module")
def lenient(cloud: Cloud) -> Iterator[int]:
    """Run a Glance whose keystonemiddleware accepts every valid token as a service token."""
    with glance_beside(cloud, "lenient", roles_required="false") as port:
        yield port


def a_tuple() -> dict[str, str]:
    return {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": str(uuid4())}


def filled(headers: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: text.format_map(names) for name, text in headers.items()}


def by(token: str) -> dict[str, str]:
    return {"X-Auth-Token": token}


def error_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


def made(cloud: Cloud) -> list[Any]:
    """Return the images that were created although the request was refused."""
    asked = f"/v2/images?name={IMAGE['name']}&visibility=all"
    return list(cloud.glance("GET", asked, by(cloud.token("admin"))).json["images"])


def recorded(cloud: Cloud, instance_id: str) -> list[Any]:
    asked = f"/v2/relations?instance_id={instance_id}"
    return list(cloud.glance("GET", asked, by(cloud.token("admin"))).json["relations"])


@pytest.mark.parametrize("spoof", SPOOFS)
def test_an_ordinary_user_cannot_record(cloud: Cloud, names: dict[str, str], spoof: str) -> None:
    said = a_tuple()
    headers = {**filled(SPOOFS[spoof], names), **by(names["alice"]), **said}
    answer = cloud.glance("POST", "/v2/images", headers, IMAGE)
    assert error_of(answer) == (403, "relation.forbidden")
    assert made(cloud) == recorded(cloud, said["X-Instance-ID"]) == []


def test_a_user_token_does_not_count_as_a_service_token_even_if_confirmed(
    cloud: Cloud, names: dict[str, str], lenient: int
) -> None:
    headers = {**by(names["alice"]), "X-Service-Token": names["bob"], **a_tuple()}
    assert error_of(ask(lenient, "POST", "/v2/images", headers, IMAGE)) == (
        403,
        "relation.forbidden",
    )
    assert made(cloud) == []


@pytest.mark.parametrize("token", ["", "nonsense"])
def test_without_a_valid_token_the_headers_say_nothing(
    cloud: Cloud, names: dict[str, str], token: str
) -> None:
    spoof = {**filled(SERVICE | CALLER, names), **(by(token) if token else {})}
    assert cloud.glance("POST", "/v2/images", spoof | a_tuple(), IMAGE).status == 401
    assert cloud.glance("GET", "/v2/relations", spoof).status == 401
    assert made(cloud) == []


@pytest.mark.parametrize("port", ["glance", "lenient"])
def test_a_service_token_beside_an_ordinary_one_records(
    cloud: Cloud, names: dict[str, str], port: str, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue(port) if port == "lenient" else cloud.plan.port(port)
    said = a_tuple()
    headers = {**by(names["alice"]), "X-Service-Token": cloud.token("nova"), **said}
    answer = ask(where, "POST", "/v2/images", headers, {**IMAGE, "name": "rightly"})
    assert (answer.status, answer.headers["X-Relation-Recorded"]) == (201, "snapshot")
    (row,) = recorded(cloud, said["X-Instance-ID"])
    assert (row["image_id"], row["project_id"]) == (answer.json["id"], names["demo"])


def test_nova_api_sends_the_token_of_its_own_account_without_service_user(
    cloud: Cloud, names: dict[str, str], created: CreatedServers
) -> None:
    """keystonemiddleware adds the service token of the account in [keystone_authtoken]."""
    server = created.servers["first"]
    with nova_without_service_user(cloud) as port:
        wanted = {"createImage": {"name": "without service_user", "metadata": {}}}
        headers = {**by(names["alice"]), "X-OpenStack-Nova-API-Version": "2.74"}
        answer = ask(port, "POST", f"/v2.1/servers/{server}/action", headers, wanted)
    assert answer.status == 202, answer.body
    image_id = answer.json["image_id"]
    assert (server, image_id) in {
        (row["instance_id"], row["image_id"])
        for row in recorded(cloud, server)
        if (row["source"], row["kind"]) == ("service", "snapshot")
    }


def test_another_service_cannot_speak_for_novas_installation(
    cloud: Cloud, names: dict[str, str]
) -> None:
    headers = {**by(names["alice"]), "X-Service-Token": cloud.token("placement"), **a_tuple()}
    spoof = {"X-Service-User-Id": names["nova"], "X-User-Id": names["nova"]}
    answer = cloud.glance("POST", "/v2/images", headers | spoof, IMAGE)
    assert error_of(answer) == (403, "installation.bound")
    assert made(cloud) == []


def test_a_user_can_neither_add_nor_remove_a_record(
    cloud: Cloud, names: dict[str, str], created: CreatedServers
) -> None:
    image_id, instance_id = created.images["backup 4"], created.servers["first"]
    spoof = {**filled(SERVICE | CALLER, names), **by(names["alice"])}
    body = {
        "installation_uuid": INSTALLATION,
        "instance_id": created.servers["shelved"],
        "image_id": image_id,
        "kind": "backup",
    }
    row = f"/v2/images/{image_id}/relations/{INSTALLATION}/{instance_id}/backup"
    instance = f"/v2/instances/{INSTALLATION}/{instance_id}"
    for method, path, sent in (
        ("POST", "/v2/relations", body),
        ("DELETE", row, None),
        ("DELETE", instance, None),
    ):
        answer = cloud.glance(method, path, spoof, sent)
        assert error_of(answer) == (403, "relation.forbidden"), path
    assert image_id in {found["image_id"] for found in recorded(cloud, instance_id)}
    assert cloud.glance("GET", instance, by(names["alice"])).json["ended_at"] is None


def test_an_ordinary_user_is_no_administrator(cloud: Cloud, names: dict[str, str]) -> None:
    spoof = {**filled(SERVICE | CALLER, names), **by(names["alice"])}
    assert error_of(cloud.glance("GET", "/v2/installations", spoof)) == (403, "admin.required")


def test_a_user_of_another_project_sees_nothing(
    cloud: Cloud, names: dict[str, str], created: CreatedServers
) -> None:
    claimed = {"X-Project-Id": names["demo"], "X-Tenant-Id": names["demo"]}
    spoof = {**filled(SERVICE | CALLER, names), **claimed, **by(names["bob"])}
    first = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": created.servers["first"]}
    images = cloud.glance("GET", "/v2/images", spoof | first)
    assert images.headers["X-Relation-Filters-Applied"] == "installation_uuid, instance_id"
    assert images.json["images"] == []
    for path in ("relations", f"images/{created.images['backup 4']}/relations", "instances"):
        answer = cloud.glance("GET", f"/v2/{path}", spoof)
        assert answer.json.get(path.rpartition("/")[2], []) == [], path
    assert len(cloud.glance("GET", "/v2/images", by(names["alice"]) | first).json["images"]) > 3


def test_the_rotation_with_the_token_of_a_user_alone_is_narrowed_too(
    cloud: Cloud, names: dict[str, str], created: CreatedServers
) -> None:
    claims = f"image_type=backup&backup_type=daily&instance_uuid={created.servers['first']}"
    spoof = {**filled(SERVICE | CALLER, names), **by(names["alice"])}
    answer = cloud.glance("GET", f"/v2/images?{claims}", spoof)
    assert answer.headers["X-Relation-Filters-Applied"] == "installation_uuid, instance_id, kind"
    named = [image["name"] for image in answer.json["images"]]
    assert named == ["backup 4", "backup 3", "backup 2"]
