"""What nova-api reports of the servers that it starts, with a fake Nova and a fake Glance.

The real ones are in tests/nova. This runs in a process without Glance, as nova_checks.py does.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from nova.exception import ImageNotFound, InstanceInvalidState

from related_images.errors import ImageBeingDeleted, InstallationBound, RelationConflict
from related_images.integrations import nova_reports, nova_starts, reporting
from related_images.integrations.heartbeats import ProcessHeartbeat
from related_images.integrations.reporting import Reports, Service
from related_images.protocol import schemas
from tests.client.clients import session
from tests.client.scripted import Asked, Reply, Scripted, serving, shown

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
IMAGE = "10000000-0000-4000-8000-000000000001"
AT = "2026-01-31T12:00:00.000000Z"


@pytest.fixture
def glance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    # how busy the machine is decides nothing
    monkeypatch.setattr(reporting, "SECONDS", 60.0)
    with serving() as scripted:
        yield scripted


def service(glance: Scripted) -> Service:
    adapter = Adapter(session(glance.url, "token"), service_type="image")
    return Service("nova-api", "the start of a server", lambda context: adapter, lambda: adapter)


def recorded(item: dict[str, Any]) -> dict[str, Any]:
    row = {"installation_uuid": NOVA, "instance_id": item["instance_id"], "image_id": IMAGE}
    unknown = dict.fromkeys(("label", "project_id", "image_created_at", "image_deleted_at"))
    row |= {"kind": "boot", "source": "service", "created_at": AT, **unknown}
    return {"status": 201, "relation": row}


def refused(status: int, error: Any) -> dict[str, Any]:
    return {"status": status, "error": schemas.described(error)}


def answering(*errors: dict[str, Any]) -> Any:
    """A script that refuses the last items of each report with the errors."""

    def script(asked: Asked) -> Reply:
        if asked.method == "DELETE":
            return Reply(204, b"")
        (items,) = json.loads(asked.body).values()
        results = [recorded(item) for item in items[: len(items) - len(errors)]]
        return shown({"relations": [*results, *errors]})

    return script


def instance(number: int = 1, image: str = IMAGE) -> Any:
    return SimpleNamespace(uuid=f"server-{number}", project_id="demo", image_ref=image)


class Api:
    """Prepares servers as Nova's API does."""

    def __init__(self, number: int, image: str = IMAGE, **root: Any) -> None:
        self.prepared = [
            (None, self._request(instance(at, image), root), None) for at in range(number)
        ]
        self.removed: list[Any] = []

    def _request(self, server: Any, root: dict[str, Any]) -> Any:
        block_device = SimpleNamespace(**{"image_id": None, "volume_id": None, **root})
        devices = SimpleNamespace(root_bdm=lambda: block_device if root else None)
        return SimpleNamespace(instance=server, block_device_mappings=devices)

    def _cleanup_build_artifacts(self, instances: Any, prepared: Any) -> None:
        self.removed += prepared


def prepare(self: Any, context: Any, boot_meta: Any) -> Any:
    return self.prepared


def create(reports: Reports, api: Api, volumes: str | None = CINDER) -> Any:
    wrapped = nova_starts.report_creation(reports, volumes, prepare)
    return wrapped(api, None, boot_meta={"id": IMAGE})


@pytest.fixture
def reports(glance: Scripted) -> Reports:
    return Reports(service(glance), NOVA, has_service_user=False)


def bodies(glance: Scripted, path: str = "/v2/relations") -> list[list[Any]]:
    return [next(iter(json.loads(asked.body).values())) for asked in glance.of("POST", path)]


def test_a_hundred_servers_are_one_request(glance: Scripted, reports: Reports) -> None:
    glance.script = answering()
    api = Api(100)
    assert create(reports, api) == api.prepared
    (items,) = bodies(glance)
    assert items[7] == {
        "installation_uuid": NOVA,
        "instance_id": "server-7",
        "image_id": IMAGE,
        "kind": "boot",
        "instance_project_id": "demo",
    }
    assert len(items) == 100
    assert [asked.method for asked in glance.asked] == ["POST"]


def test_more_servers_are_several_requests(glance: Scripted, reports: Reports) -> None:
    glance.script = answering()
    create(reports, Api(101))
    assert [len(items) for items in bodies(glance)] == [100, 1]


@pytest.mark.parametrize(
    ("image", "root", "reported"),
    [
        (IMAGE.upper().replace("1", "A"), {}, "a0000000-0000-4000-8000-00000000000a"),
        ("", {"image_id": IMAGE}, IMAGE),
        (IMAGE, {"volume_id": None, "snapshot_id": "snapshot"}, IMAGE),
    ],
)
def test_the_image_of_a_server(
    glance: Scripted, reports: Reports, image: str, root: dict[str, Any], reported: str
) -> None:
    glance.script = answering()
    create(reports, Api(1, image, **root))
    assert [item["image_id"] for (item,) in bodies(glance)] == [reported]


def test_the_root_volume_of_a_server(glance: Scripted, reports: Reports) -> None:
    glance.script = lambda asked: shown({"origins": [{"status": 201, "origin": {}}]})
    create(reports, Api(1, "", volume_id="volume-1"))
    ((item,),) = bodies(glance, "/v2/origins")
    assert item.pop("since").endswith("Z")
    assert item == {
        "installation_uuid": NOVA,
        "instance_id": "server-0",
        "source": {
            "installation_uuid": CINDER,
            "instance_id": "volume-1",
            "resource_type": "volume",
        },
        "project_id": "demo",
    }


@pytest.mark.parametrize(
    ("root", "volumes"), [({"volume_id": "v"}, None), ({"snapshot_id": "s"}, CINDER), ({}, CINDER)]
)
def test_nothing_is_reported_of_another_root_disk(
    glance: Scripted, reports: Reports, root: dict[str, Any], volumes: str | None
) -> None:
    api = Api(1, "", **root)
    assert create(reports, api, volumes) == api.prepared
    assert [asked for asked in glance.asked if asked.method == "POST"] == []


def test_a_creation_that_is_refused_leaves_nothing(glance: Scripted, reports: Reports) -> None:
    """The deletion of the image begins between the reports of two servers."""
    glance.script = answering(refused(409, ImageBeingDeleted("wait")))
    api = Api(3)
    with pytest.raises(ImageNotFound, match=IMAGE):
        create(reports, api)
    assert api.removed == api.prepared
    rolled_back = [asked for asked in glance.asked if asked.method == "DELETE"]
    assert [asked.path for asked in rolled_back] == [
        f"/v2/images/{IMAGE}/relations/{NOVA}/server-{number}/boot" for number in range(2)
    ]
    assert all("own_report=attachment" in asked.query for asked in rolled_back)


def test_a_missing_image_counts_more_than_another_error(glance: Scripted, reports: Reports) -> None:
    glance.script = answering(
        refused(403, InstallationBound("another one")), refused(409, ImageBeingDeleted("wait"))
    )
    with pytest.raises(ImageNotFound):
        create(reports, Api(2))


def test_a_heartbeat_has_the_token_of_the_service_user(
    glance: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance.script = lambda _: shown({})
    plugin, contexts = object(), list[Any]()
    adapter = Adapter(session(glance.url, "token"), service_type="image")
    monkeypatch.setattr(
        "keystoneauth1.loading.load_auth_from_conf_options", lambda _, group: (plugin, group)
    )
    nova_reports._service_auth.cache_clear()

    def client_of(context: Any) -> Any:
        contexts.append(context)
        return adapter

    monkeypatch.setattr(nova_reports, "_client", client_of)
    at = datetime(2026, 1, 31, tzinfo=UTC)
    reports = nova_reports.nova_reports(NOVA, has_service_user=True)
    reports._beat(ProcessHeartbeat("process-1", at, at + timedelta(minutes=1)))
    nova_reports._service_auth.cache_clear()
    assert [context.get_auth_plugin() for context in contexts] == [(plugin, "service_user")]
    (asked,) = glance.of("POST", "/v2/witnesses")
    assert json.loads(asked.body) == {
        "installation_uuid": NOVA,
        "witness": "nova-api",
        "process": "process-1",
        "from": "2026-01-31T00:00:00.000000Z",
        "until": "2026-01-31T00:01:00.000000Z",
    }


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (Reply(503, b"{}"), 2),
        (Reply(200, b"<html>"), 2),
        (shown({"relations": [refused(403, InstallationBound("another one"))]}), 1),
        (Reply(404, b"{}"), 1),
        (None, 2),
        (shown({"relations": [refused(409, RelationConflict("a label"))]}), 0),
    ],
)
def test_a_lost_report_delays_nothing_and_is_logged(
    glance: Scripted,
    reports: Reports,
    reply: Reply | None,
    lines: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    glance.script = lambda _: reply
    api = Api(1)
    for _ in range(2):
        assert create(reports, api) == api.prepared
    assert caplog.text.count("the start of a server is not reported") == lines


def test_a_lost_report_ends_the_interval_of_the_heartbeats(
    glance: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reports, "_beat", lambda _, beat: None)
    reports = Reports(service(glance), NOVA, has_service_user=True)
    reports.begin()
    assert reports._heartbeat is not None
    covered = reports._heartbeat.coverage
    glance.script = answering()
    create(reports, Api(1))
    before = covered.interval()
    glance.script = lambda _: Reply(503, b"{}")
    create(reports, Api(1))
    after = covered.interval()
    assert before is not None
    assert after is not None
    assert after[0] > before[1] > before[0]


def test_an_unexpected_nova_fails_no_server(
    glance: Scripted, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(1)
    api.prepared = [(None, SimpleNamespace(), None)]
    assert create(reports, api) == api.prepared
    assert "is not reported" in caplog.text


class RebuildingApi:
    """Rebuilds a server as Nova's API does: two checks, and then the change."""

    def __init__(self, before: Exception | None = None, after: Exception | None = None) -> None:
        self.before, self.after, self.changed = before, after, False

    def check(self, image: Any) -> None:
        nova_starts.report_before_change(lambda image: None)(image)

    def rebuild(self, context: Any, instance: Any, image_href: str, **kwargs: Any) -> None:
        if self.before:
            raise self.before
        self.check(image_href)
        if self.after:
            raise self.after
        self.changed = True


def rebuild(reports: Reports, api: RebuildingApi, server: Any, **more: Any) -> None:
    def function(
        self: Any,
        context: Any,
        instance: Any,
        image_href: str,
        reimage_boot_volume: bool = False,
    ) -> None:
        self.rebuild(context, instance, image_href)

    nova_starts.report_rebuild(reports, function)(api, None, server, IMAGE, **more)


def state() -> InstanceInvalidState:
    return InstanceInvalidState(
        instance_uuid="server-1", attr="task_state", state="x", method="rebuild"
    )


def test_a_rebuild_is_reported_after_its_checks(glance: Scripted, reports: Reports) -> None:
    glance.script = answering()
    with pytest.raises(InstanceInvalidState):
        rebuild(reports, RebuildingApi(before=state()), instance())
    assert glance.asked == []
    api = RebuildingApi()
    rebuild(reports, api, instance())
    assert api.changed
    assert [(item["instance_id"], item["image_id"]) for (item,) in bodies(glance)] == [
        ("server-1", IMAGE)
    ]
    # a creation checks the same, and has no report of a rebuild
    api.check({})
    assert len(bodies(glance)) == 1


def test_a_rebuild_that_fails_later_is_rolled_back(glance: Scripted, reports: Reports) -> None:
    glance.script = answering()
    with pytest.raises(InstanceInvalidState):
        rebuild(reports, RebuildingApi(after=state()), instance())
    (rolled_back,) = [asked for asked in glance.asked if asked.method == "DELETE"]
    assert rolled_back.path == f"/v2/images/{IMAGE}/relations/{NOVA}/server-1/boot"


def test_a_rebuild_from_an_image_that_is_being_deleted_changes_nothing(
    glance: Scripted, reports: Reports
) -> None:
    glance.script = answering(refused(409, ImageBeingDeleted("wait")))
    api = RebuildingApi()
    with pytest.raises(ImageNotFound, match=IMAGE):
        rebuild(reports, api, instance())
    assert not api.changed


@pytest.mark.parametrize(("is_reimaged", "number"), [(False, 0), (True, 1)])
def test_a_rebuild_of_a_server_on_volumes(
    glance: Scripted, reports: Reports, is_reimaged: bool, number: int
) -> None:
    glance.script = answering()
    api = RebuildingApi()
    rebuild(reports, api, instance(image=""), reimage_boot_volume=is_reimaged)
    assert api.changed
    assert len(bodies(glance)) == number


@pytest.mark.parametrize("status", [204, 404, 503])
@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_deletion_without_a_notification_is_reported(
    glance: Scripted,
    reports: Reports,
    is_deleted: bool,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def delete(self: Any, context: Any, instance: Any) -> bool:
        return is_deleted

    glance.script = lambda _: Reply(status, b"")
    wrapped = nova_starts.report_early_deletion(reports, delete)
    assert wrapped(None, None, instance()) is is_deleted
    sent = [(asked.method, asked.path) for asked in glance.asked]
    assert sent == [("DELETE", f"/v2/instances/{NOVA}/server-1")] * is_deleted
    assert ("until a reconciliation" in caplog.text) == (is_deleted and status == 503)
