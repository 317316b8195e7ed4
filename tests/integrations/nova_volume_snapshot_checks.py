"""Snapshots of servers on volumes, with a fake Nova and a fake Glance."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter

from related_images.integrations import nova_volume_snapshots, reporting
from related_images.integrations.nova_errors import Refusal, Refused
from related_images.integrations.reporting import Reports, Service
from tests.client.clients import session
from tests.client.scripted import INFO, Reply, Scripted, serving, shown

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def glance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    # how busy the machine is decides nothing
    monkeypatch.setattr(reporting, "SECONDS", 60.0)
    with serving() as scripted:
        yield scripted


@pytest.fixture
def reports(glance: Scripted) -> Reports:
    adapter = Adapter(session(glance.url, "token"), service_type="image")
    service = Service("nova-api", "the start of a server", lambda context: adapter, lambda: adapter)
    return Reports(service, NOVA, has_service_user=False)


class VolumeApi:
    """Creates a volume snapshot only after it was asked for its status twice."""

    def __init__(self) -> None:
        self.asked = 0
        self.deleted: list[str] = []

    @nova_volume_snapshots.note_volume_snapshot
    def create_snapshot_force(self, context: Any, volume_id: str) -> dict[str, str]:
        return {"id": f"snapshot of {volume_id}"}

    def get_snapshot(self, context: Any, snapshot_id: str) -> dict[str, str]:
        self.asked += 1
        return {"status": "creating" if self.asked < 3 else "available"}

    def delete_snapshot(self, context: Any, snapshot_id: str) -> None:
        assert self.asked >= 3
        self.deleted.append(snapshot_id)


class Api:
    """Snapshots a server on two volumes as Nova's API does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.volume_api = VolumeApi()
        self.error, self.begun = error, False

    def snapshot_volume_backed(self, context: Any) -> str:
        self.begun = True
        for volume_id in ("v1", "v2"):
            self.volume_api.create_snapshot_force(context, volume_id)
        if self.error:
            raise self.error
        return "image"


def snapshot(reports: Reports, api: Api) -> Any:
    function = nova_volume_snapshots.refuse_early(reports, Api.snapshot_volume_backed)
    return function(api, "context")


def info(**recording: bool) -> Reply:
    return shown({"version": "0", "kinds": [], "recording": recording})


@pytest.mark.parametrize("reply", [info(available=True, allowed=True), INFO, Reply(404, b"{}")])
def test_a_snapshot_that_can_be_recorded_is_taken(
    glance: Scripted, reports: Reports, reply: Reply
) -> None:
    glance.info = reply
    api = Api()
    assert snapshot(reports, api) == "image"
    assert api.volume_api.deleted == []


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (info(available=False, allowed=True), HTTPStatus.SERVICE_UNAVAILABLE),
        (info(available=True, allowed=False), HTTPStatus.FORBIDDEN),
        (Reply(500, b"{}"), HTTPStatus.SERVICE_UNAVAILABLE),
        (None, HTTPStatus.SERVICE_UNAVAILABLE),
    ],
)
def test_a_snapshot_that_cannot_be_recorded_does_not_begin(
    glance: Scripted, reports: Reports, reply: Reply | None, status: HTTPStatus
) -> None:
    glance.info = reply
    api = Api()
    with pytest.raises(Refused, match="no snapshot was taken") as raised:
        snapshot(reports, api)
    assert raised.value.status_int == status
    assert not api.begun


def test_the_volume_snapshots_of_a_refused_image_are_deleted(
    glance: Scripted, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance.info = info(available=True, allowed=True)
    monkeypatch.setattr(nova_volume_snapshots, "PAUSE", 0.01)
    api = Api(Refused(Refusal(503, "the database is down", "30")))
    with pytest.raises(Refused, match="the database is down"):
        snapshot(reports, api)
    until = time.monotonic() + 60
    while len(api.volume_api.deleted) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert api.volume_api.deleted == ["snapshot of v1", "snapshot of v2"]


def test_the_volume_snapshots_of_an_image_that_may_exist_are_kept(
    glance: Scripted, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance.info = info(available=True, allowed=True)
    removed: list[Any] = []
    monkeypatch.setattr(nova_volume_snapshots, "_remove_later", lambda *them: removed.append(them))
    with pytest.raises(ConnectionError):
        snapshot(reports, Api(ConnectionError("no response")))
    assert removed == []
