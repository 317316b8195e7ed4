"""The client of Cinder for reconciliation; a scripted Cinder sends what a real one rarely sends."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.db.resource_service import Presence
from related_images.errors import CinderUnreachable, UntrustedCinderAnswer
from related_images.manage import cinder_admin
from related_images.manage.cinder_admin import CinderResources
from related_images.manage.rate_limit import RateLimit
from tests.client.scripted import Reply, Scripted, shown
from tests.manage.resource_pages import listed
from tests.manage.scripted_cinder import NOT_FOUND, ScriptedCinder, backup, snapshot, volume
from tests.manage.scripted_nova import FORBIDDEN, vm, vms

IMAGE = "0b5c1f6e-2f0e-4f3e-9f7a-3c1d0a7b9e55"


@pytest.fixture
def cinder(scripted: Scripted) -> ScriptedCinder:
    script = ScriptedCinder()
    scripted.script = script
    scripted.asked.clear()
    return script


@pytest.fixture
def clients(scripted: Scripted, cinder: ScriptedCinder) -> list[CinderResources]:
    session = Session(Token(scripted.url, "token"))
    adapter = Adapter(session, endpoint_override=scripted.url)
    return cinder_admin.resources(adapter, RateLimit(math.inf))


@pytest.fixture
def volumes(clients: list[CinderResources]) -> CinderResources:
    return clients[0]


def test_the_pages_follow_the_ids(cinder: ScriptedCinder, volumes: CinderResources) -> None:
    cinder.volumes = [volume(number) for number in (4, 2, 9, 7, 5)]
    cinder.size = 2
    pages = [(vms(2, 4), vm(4)), (vms(5, 7), vm(7)), (vms(9), vm(9)), ([], None)]
    assert listed(volumes) == pages
    assert listed(volumes, vm(4)) == pages[1:]


@pytest.mark.parametrize("deleted", [(4,), (3, 4), (1, 2, 3, 4)])
def test_a_listing_continues_if_resources_are_deleted_meanwhile(
    cinder: ScriptedCinder, volumes: CinderResources, deleted: tuple[int, ...]
) -> None:
    cinder.volumes = [volume(number) for number in range(1, 8)]
    cinder.size = 2
    cinder.deleted = set(vms(*deleted))
    found = listed(volumes)
    reached = [until for _, until in found[:-1]]
    assert reached == sorted(reached, key=str)
    assert found[-1] == ([], None)
    assert {one for page, _ in found for one in page} == set(vms(*range(1, 8)))


def test_a_listing_that_is_continued_after_a_deleted_resource_begins_again(
    cinder: ScriptedCinder, volumes: CinderResources
) -> None:
    cinder.volumes = [volume(number) for number in (1, 2, 5, 6)]
    cinder.size = 2
    assert listed(volumes, vm(4)) == [(vms(5, 6), vm(6)), ([], None)]


def test_the_fields_of_the_resources_are_read(
    cinder: ScriptedCinder, clients: list[CinderResources]
) -> None:
    cinder.volumes = [
        volume(1, volume_image_metadata={"image_id": IMAGE}),
        volume(2, source_volid=vm(1), status="in-use"),
        volume(3, snapshot_id=vm(7), status="error"),
    ]
    cinder.snapshots = [snapshot(7, vm(1))]
    imported = "00000000-0000-0000-0000-000000000000"
    cinder.backups = [backup(8, vm(1)), backup(9, imported, status="deleting")]
    found = [
        one for client in clients for page in client.pages("") for one in page.resources.values()
    ]
    assert [one.source for one in found] == [
        *(None, ("volume", vm(1)), ("volume-snapshot", vm(7))),
        *(("volume", vm(1)), ("volume", vm(1)), None),
    ]
    assert [one.claimed_image for one in found] == [IMAGE, *[None] * 5]
    assert [one.launched_at is not None for one in found] == [True, True, False, True, True, False]
    assert {one.project_id for one in found} == {"demo"}
    assert {one.image_id for one in found} == {None}
    assert f"{found[0].created_at}" == "2026-01-31 12:00:00+00:00"


@pytest.mark.parametrize("order", [(2, 1), (1, 1)])
def test_another_order_is_not_trusted(
    cinder: ScriptedCinder, volumes: CinderResources, order: tuple[int, ...]
) -> None:
    page = shown({"volumes": [volume(number) for number in order]})
    cinder.replies["/volumes/detail"] = page
    with pytest.raises(UntrustedCinderAnswer, match="is not in the order of the IDs"):
        listed(volumes)


def test_a_list_that_ignores_the_marker_is_not_trusted(
    cinder: ScriptedCinder, volumes: CinderResources
) -> None:
    cinder.replies["/volumes/detail"] = shown({"volumes": [volume(1), volume(2)]})
    with pytest.raises(UntrustedCinderAnswer, match="is not in the order of the IDs"):
        listed(volumes)


ERROR_PAGE = Reply(200, b"<html><h1>Maintenance</h1></html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "reply",
    [
        ERROR_PAGE,
        shown([]),
        shown({"volumes": None}),
        shown({"volumes": ["x"]}),
        shown({"volumes": [volume(1, id="data")]}),
        shown({"volumes": [volume(1, source_volid="data")]}),
        shown({"volumes": [volume(1, source_volid=vm(1))]}),
        shown({"volumes": [volume(1, created_at="yesterday")]}),
        shown({"volumes": [volume(1, **{"os-vol-tenant-attr:tenant_id": None})]}),
        shown({"volumes": [{"id": vm(1), "name": "without details"}]}),
        Reply(404),
        NOT_FOUND,
        FORBIDDEN,
    ],
)
def test_a_list_in_another_format_is_not_trusted(
    cinder: ScriptedCinder, volumes: CinderResources, reply: Reply
) -> None:
    cinder.replies["/volumes/detail"] = reply
    with pytest.raises(UntrustedCinderAnswer, match=r"GET /volumes/detail: .*check the endpoint"):
        listed(volumes)


def test_a_resource_that_is_not_listed_is_looked_up(
    cinder: ScriptedCinder, clients: list[CinderResources]
) -> None:
    now = datetime.now(UTC).isoformat()
    cinder.volumes = [volume(1), volume(2, created_at=now)]
    cinder.snapshots = [snapshot(3, vm(1))]
    volumes, snapshots, backups = clients
    wanted = [(volumes, 1), (volumes, 2), (volumes, 3), (snapshots, 3), (backups, 1)]
    assert [client.look_up(vm(number)) for client, number in wanted] == [
        Presence.DOUBTFUL,
        # it was created after the page was read
        Presence.PRESENT,
        Presence.GONE,
        Presence.DOUBTFUL,
        Presence.GONE,
    ]
    assert volumes.look_up("data") is Presence.FOREIGN
    assert (volumes.project_of(vm(1)), volumes.project_of(vm(3))) == ("demo", None)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404, b"<html>no such backend</html>"), "the status is 404"),
        (Reply(404, NOT_FOUND.body), "the status is 404"),
        (FORBIDDEN, "the status is 403 .Policy doesn't allow it"),
        (Reply(500), "the status is 500"),
        (ERROR_PAGE, "not the expected JSON"),
        (shown({"volume": volume(2)}), "not the expected JSON"),
    ],
)
def test_another_response_does_not_say_that_a_volume_is_gone(
    cinder: ScriptedCinder, volumes: CinderResources, reply: Reply, said: str
) -> None:
    cinder.replies[f"/volumes/{vm(1)}"] = reply
    with pytest.raises(UntrustedCinderAnswer, match=said):
        volumes.look_up(vm(1))


@pytest.mark.parametrize("reply", [FORBIDDEN, Reply(401)])
def test_a_caller_who_does_not_see_all_volumes_is_refused(
    cinder: ScriptedCinder, volumes: CinderResources, reply: Reply
) -> None:
    volumes.require_administrator()
    cinder.replies["/os-services"] = reply
    with pytest.raises(UntrustedCinderAnswer, match="use an account with the admin role"):
        volumes.require_administrator()


def test_every_request_has_the_microversion(
    scripted: Scripted, cinder: ScriptedCinder, volumes: CinderResources
) -> None:
    volumes.require_administrator()
    cinder.volumes = [volume(1)]
    listed(volumes)
    volumes.look_up(vm(2))
    versions = {asked.headers.get("openstack-api-version") for asked in scripted.asked}
    assert versions == {"volume 3.18"}
    assert len(scripted.asked) == 4


def test_a_cinder_that_does_not_respond_is_reported(
    scripted: Scripted, volumes: CinderResources
) -> None:
    unavailable: dict[str, Any] = {"/os-services": Reply(503)}
    scripted.script = ScriptedCinder(replies=unavailable)
    with pytest.raises(CinderUnreachable, match="GET /os-services: Cinder answered 503"):
        volumes.require_administrator()
