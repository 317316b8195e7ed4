"""The client of Nova for reconciliation; a scripted Nova sends what a real one rarely sends."""

import math
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.db.resource_service import Presence
from related_images.errors import NovaUnreachable, UntrustedNovaAnswer
from related_images.manage.nova_admin import NovaAdmin
from related_images.manage.rate_limit import RateLimit
from tests.client.scripted import Reply, Scripted, shown
from tests.manage.resource_pages import listed
from tests.manage.scripted_nova import (
    FAILED,
    FORBIDDEN,
    NOT_FOUND,
    WAITING,
    ScriptedNova,
    server,
    vm,
    vms,
)

IMAGE = "0b5c1f6e-2f0e-4f3e-9f7a-3c1d0a7b9e55"


@pytest.fixture
def nova(scripted: Scripted) -> ScriptedNova:
    script = ScriptedNova()
    scripted.script = script
    scripted.asked.clear()
    return script


@pytest.fixture
def client(scripted: Scripted, nova: ScriptedNova) -> NovaAdmin:
    session = Session(Token(scripted.url, "token"))
    return NovaAdmin(Adapter(session, endpoint_override=scripted.url), RateLimit(math.inf))


def test_the_pages_follow_the_ids(nova: ScriptedNova, client: NovaAdmin) -> None:
    nova.servers = [server(number) for number in (4, 2, 9, 7, 5)]
    nova.size = 2
    pages = [(vms(2, 4), vm(4)), (vms(5, 7), vm(7)), (vms(9), vm(9)), ([], None)]
    assert listed(client) == pages
    assert listed(client, vm(4)) == pages[1:]


@pytest.mark.parametrize(
    ("waiting", "there", "pages"),
    [
        ((), (), [([], None)]),
        ((6,), (), [(vms(6), ""), ([], None)]),
        ((6,), (2, 8), [(vms(6, 2), vm(2)), (vms(8), vm(8)), ([], None)]),
        ((1, 6), (2, 8), [(vms(1, 6), ""), (vms(2, 8), vm(8)), ([], None)]),
        ((1, 6, 7), (2,), [(vms(1, 6), ""), (vms(7, 2), vm(2)), ([], None)]),
        ((1,), (2, 8), [(vms(1, 2), vm(2)), (vms(8), vm(8)), ([], None)]),
    ],
)
def test_servers_that_wait_for_the_scheduler_are_listed_first(
    nova: ScriptedNova,
    client: NovaAdmin,
    waiting: tuple[int, ...],
    there: tuple[int, ...],
    pages: list[tuple[list[str], str | None]],
) -> None:
    nova.waiting = [server(number, **WAITING) for number in waiting]
    nova.servers = [server(number) for number in there]
    nova.size = 2
    assert listed(client) == pages


def test_a_listing_begins_again_if_the_last_server_of_a_page_is_purged(
    nova: ScriptedNova, client: NovaAdmin
) -> None:
    nova.servers = [server(number) for number in range(1, 8)]
    nova.size = 2
    nova.lost_markers = {vm(4)}
    pages = [(vms(1, 2), vm(2)), (vms(3, 4), vm(4)), (vms(5, 6), vm(6)), (vms(7), vm(7))]
    assert listed(client) == [*pages, ([], None)]
    nova.lost_markers = {vm(4)}
    assert listed(client, vm(4)) == [*pages[2:], ([], None)]


def test_a_listing_does_not_begin_again_endlessly(nova: ScriptedNova, client: NovaAdmin) -> None:
    nova.servers = [server(number) for number in range(1, 4)]
    nova.size = 2

    class Forgetful(set[str]):
        def remove(self, element: str) -> None:
            """Keep it."""

    nova.lost_markers = Forgetful({vm(2)})
    with pytest.raises(UntrustedNovaAnswer, match=r"400 .marker not found"):
        listed(client)


def test_the_fields_of_a_server_are_read(nova: ScriptedNova, client: NovaAdmin) -> None:
    nova.servers = [
        server(1, IMAGE),
        server(2),
        server(3, IMAGE, **FAILED),
        server(4, IMAGE, status="ERROR"),
        server(5, IMAGE, **{"status": "SHELVED", "OS-EXT-STS:task_state": "spawning"}),
        server(6, IMAGE, status="SHELVED"),
        server(7, IMAGE, **{"OS-EXT-STS:task_state": "rebooting"}),
    ]
    resources = list(next(client.pages("")).resources.values())
    assert [one.image_id for one in resources] == [IMAGE, None, *[IMAGE] * 5]
    assert [one.has_failed for one in resources] == [False, False, True, *[False] * 4]
    assert [one.is_image_settled for one in resources] == [*[True] * 4, False, True, True]
    assert {one.project_id for one in resources} == {"demo"}
    assert f"{resources[0].created_at}" == "2026-01-31 12:00:00+00:00"
    assert f"{resources[0].launched_at}" == "2026-01-31 12:01:00+00:00"


UNORDERED = [
    [server(2), server(1)],
    [server(1), server(1)],
    [server(2, **WAITING), server(1, **WAITING), server(3), server(2)],
]


@pytest.mark.parametrize("servers", UNORDERED)
def test_another_order_is_not_trusted(
    nova: ScriptedNova, client: NovaAdmin, servers: list[dict[str, Any]]
) -> None:
    nova.replies["/servers/detail"] = shown({"servers": servers})
    with pytest.raises(UntrustedNovaAnswer, match="is not in the order of the IDs"):
        listed(client)


@pytest.mark.parametrize("more", [{}, WAITING], ids=["the same page again", "and servers wait"])
def test_a_list_that_ignores_the_marker_is_not_trusted(
    nova: ScriptedNova, client: NovaAdmin, more: dict[str, Any]
) -> None:
    nova.replies["/servers/detail"] = shown({"servers": [server(1, **more), server(2, **more)]})
    with pytest.raises(UntrustedNovaAnswer, match="is not in the order of the IDs"):
        listed(client)


ERROR_PAGE = Reply(200, b"<html><h1>Maintenance</h1></html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "reply",
    [
        ERROR_PAGE,
        shown([]),
        shown({"servers": None}),
        shown({"servers": ["x"]}),
        shown({"servers": [server(1, id="web-1")]}),
        shown({"servers": [server(1, "base")]}),
        shown({"servers": [server(1) | {"image": "base"}]}),
        shown({"servers": [server(1, created="yesterday")]}),
        shown({"servers": [server(1, tenant_id=None)]}),
        shown({"servers": [{"id": vm(1), "status": "UNKNOWN", "tenant_id": "demo"}]}),
        shown({"computeFault": {"code": 500, "message": "Cell is not responding"}}, 500),
        Reply(404),
        FORBIDDEN,
    ],
)
def test_a_list_in_another_format_is_not_trusted(
    nova: ScriptedNova, client: NovaAdmin, reply: Reply
) -> None:
    nova.replies["/servers/detail"] = reply
    with pytest.raises(UntrustedNovaAnswer, match=r"GET /servers/detail: .*check the endpoint"):
        listed(client)


@pytest.mark.parametrize(
    ("status", "presence"),
    [
        ("SOFT_DELETED", Presence.PRESENT),
        ("BUILD", Presence.PRESENT),
        ("ACTIVE", Presence.DOUBTFUL),
        ("UNKNOWN", Presence.DOUBTFUL),
    ],
)
def test_a_server_that_is_not_listed_is_looked_up(
    nova: ScriptedNova, client: NovaAdmin, status: str, presence: Presence
) -> None:
    nova.unlisted = [server(1, status=status)]
    assert client.look_up(vm(1)) is presence
    assert client.look_up(vm(2)) is Presence.GONE


@pytest.mark.parametrize("instance_id", ["i-1", "..", "detail", vm(1).replace("0", "A"), vm(1)[1:]])
def test_an_id_that_nova_cannot_have_is_not_looked_up(
    scripted: Scripted, client: NovaAdmin, instance_id: str
) -> None:
    assert client.look_up(instance_id) is Presence.FOREIGN
    assert scripted.asked == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404, b"<html>no such backend</html>"), "the status is 404"),
        (Reply(404, NOT_FOUND.body), "the status is 404"),
        (shown({"error": "not found"}, 404, x_openstack_request_id="req-1"), "404"),
        (FORBIDDEN, "the status is 403 .Policy doesn't allow it"),
        (shown({"computeFault": {"message": "down"}}, 500), "the status is 500 .down"),
        (ERROR_PAGE, "not the expected JSON"),
        (shown({"server": server(2)}), "not the expected JSON"),
        (shown({"server": None}), "not the expected JSON"),
    ],
)
def test_another_response_does_not_say_that_a_server_is_gone(
    nova: ScriptedNova, client: NovaAdmin, reply: Reply, said: str
) -> None:
    nova.replies[f"/servers/{vm(1)}"] = reply
    with pytest.raises(UntrustedNovaAnswer, match=said):
        client.look_up(vm(1))


def test_a_cell_that_is_down_is_noticed(
    nova: ScriptedNova, client: NovaAdmin, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.is_whole()
    down = {"binary": "nova-compute", "host": "compute-7", "status": "UNKNOWN"}
    nova.replies["/os-services"] = shown({"services": [{"status": "enabled"}, down]})
    assert not client.is_whole()
    assert "'compute-7'" in caplog.text
    nova.replies["/os-services"] = FORBIDDEN
    with pytest.raises(UntrustedNovaAnswer, match="GET /os-services: the status is 403"):
        client.is_whole()


@pytest.mark.parametrize("reply", [FORBIDDEN, Reply(401)])
def test_a_caller_who_does_not_see_all_servers_is_refused(
    nova: ScriptedNova, client: NovaAdmin, reply: Reply
) -> None:
    client.require_administrator()
    nova.replies["/servers"] = reply
    with pytest.raises(UntrustedNovaAnswer, match="use an account with the admin role"):
        client.require_administrator()


def test_every_request_has_the_microversion(
    scripted: Scripted, nova: ScriptedNova, client: NovaAdmin
) -> None:
    client.require_administrator()
    nova.servers = [server(1)]
    listed(client)
    client.look_up(vm(2))
    client.is_whole()
    versions = {asked.headers.get("openstack-api-version") for asked in scripted.asked}
    assert versions == {"compute 2.69"}
    assert len(scripted.asked) == 5


def test_a_busy_nova_is_asked_again(
    scripted: Scripted, nova: ScriptedNova, client: NovaAdmin
) -> None:
    busy = [Reply(503, b"", {"Retry-After": "0"})] * 3
    scripted.script = lambda asked: busy.pop() if busy else nova(asked)
    assert client.is_whole()
    assert busy == []
    busy[:] = [Reply(503, b"", {"Retry-After": "61"})] * 2
    with pytest.raises(NovaUnreachable, match="Nova answered 503"):
        client.is_whole()
    assert len(busy) == 1


def test_a_nova_that_does_not_respond_is_reported() -> None:
    waits = list[float]()
    limit = RateLimit(math.inf, sleep=waits.append)
    nowhere = Adapter(Session(Token("http://127.0.0.1:1", "token")))
    nowhere.endpoint_override = "http://127.0.0.1:1"
    with pytest.raises(NovaUnreachable, match="GET /os-services got no answer from Nova"):
        NovaAdmin(nowhere, limit).is_whole()
    assert waits == [2, 4, 8]
