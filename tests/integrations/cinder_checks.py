"""The paste filter of cinder-api: its loading, and what it reports with a fake Glance.

The real ones are in tests/cloud. This runs in a process without Glance, as nova_checks.py does.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from cinder import objects
from cinder.exception import ImageNotFound, InvalidVolume
from keystoneauth1.adapter import Adapter

from related_images.client import InstanceRef, for_instance
from related_images.errors import (
    CinderUnexpected,
    ConfigurationError,
    ImageBeingDeleted,
    TupleMalformed,
)
from related_images.integrations import cinder, cinder_origins, reporting
from related_images.integrations.patching import PatchTarget
from related_images.integrations.reporting import Reports, Service
from related_images.protocol import schemas
from tests.client.clients import session
from tests.client.scripted import Asked, Reply, Scripted, serving, shown

CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
OTHER_CINDER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
IMAGE = "10000000-0000-4000-8000-000000000001"
TARGETS = (
    *(cinder.UPLOAD, cinder.MAKE_CLIENT, cinder.CREATE_VOLUME, cinder.CREATE_ROW, cinder.REIMAGE),
    *(cinder.CREATE_SNAPSHOT, cinder.CREATE_BACKUP, cinder.RESTORE),
    *(cinder.FIND_GLANCE, cinder.SERVICE_SESSION),
)

# as cinder-api does before it loads its paste file
objects.register_all()


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    """Restore Cinder's functions after each test."""
    found = [(owner, name) for owner, name, _ in map(cinder.CINDER.find, TARGETS)]
    functions = [vars(owner)[name] for owner, name in found]
    yield
    for (owner, name), function in zip(found, functions, strict=True):
        setattr(owner, name, function)
    cinder._installed.clear()


def answer(environ: Any, start_response: Any) -> list[bytes]:
    return [environ["PATH_INFO"]]


def test_each_pipeline_loads_the_filter() -> None:
    for _ in range(2):
        app = cinder.filter_factory({"here": "/"}, installation_uuid=CINDER.upper())(answer)
        assert app({"PATH_INFO": b"/v3"}, print) == [b"/v3"]  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"cannot report those of {OTHER_CINDER}"):
        cinder.filter_factory({}, installation_uuid=OTHER_CINDER)


@pytest.mark.parametrize("options", [{}, {"installation_uuid": CINDER, "x": ""}, {"x": ""}])
def test_installation_uuid_is_the_only_option(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="needs the option installation_uuid"):
        cinder.filter_factory({}, **options)


def test_a_malformed_installation_stops_the_start() -> None:
    with pytest.raises(TupleMalformed):
        cinder.filter_factory({}, installation_uuid="cinder")


@pytest.mark.parametrize("target", TARGETS)
def test_a_function_with_other_arguments_stops_the_start(
    target: PatchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [other for other in TARGETS if other != target]
    before = [cinder.CINDER.find(other)[2] for other in others]
    owner, name, _ = cinder.CINDER.find(target)
    monkeypatch.setattr(owner, name, lambda context, server: None)
    with pytest.raises(CinderUnexpected, match=r"Cinder \d+.* has cinder\..*\(context, server\)"):
        cinder.filter_factory({}, installation_uuid=CINDER)
    assert [cinder.CINDER.find(other)[2] for other in others] == before


def test_the_arguments_of_cinder_26_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    older = lambda context, netloc, use_ssl: None  # noqa: E731
    monkeypatch.setattr("cinder.image.glance._create_glance_client", older)
    cinder.filter_factory({}, installation_uuid=CINDER)
    assert cinder.CINDER.find(cinder.MAKE_CLIENT)[2] is not older


def test_the_headers_are_kept_when_cinder_assigns_its_own() -> None:
    """Cinder assigns ``additional_headers`` to a client that it has made."""
    sent: list[Any] = []

    def post(url: str, **kwargs: Any) -> Any:
        sent.append(kwargs["headers"])
        return SimpleNamespace(headers={}), {}

    client = SimpleNamespace(http_client=SimpleNamespace(post=post))
    made = cinder._send_volume_headers(lambda: client)()
    made.http_client.additional_headers = {"x-openstack-base-image-ref": IMAGE}
    with for_instance(InstanceRef(CINDER, "volume-1", "volume"), kind="snapshot"):
        made.http_client.post("/v2/images", headers={"a": "b"})
    made.http_client.post("/v2/images")
    assert sent[0]["X-Instance-ID"] == "volume-1"
    assert sent[0]["X-Resource-Type"] == "volume"
    assert sent[0]["a"] == "b"
    assert sent[1] == {}


@pytest.fixture
def glance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    # how busy the machine is decides nothing
    monkeypatch.setattr(reporting, "SECONDS", 60.0)
    with serving() as scripted:
        scripted.script = lambda asked: accepted(asked)
        yield scripted


@pytest.fixture
def reports(glance: Scripted) -> Reports:
    adapter = Adapter(session(glance.url, "token"), service_type="image")
    service = Service("cinder-api", "the source of a volume", lambda _: adapter, lambda: adapter)
    return Reports(service, CINDER, has_service_user=False)


def accepted(asked: Asked) -> Reply:
    if asked.method == "DELETE":
        return Reply(204, b"")
    name, items = next(iter(json.loads(asked.body).items()))
    unknown = dict.fromkeys(("label", "project_id", "image_created_at", "image_deleted_at"))
    row = {"image_id": IMAGE, "kind": "boot", "source": "service", **unknown}
    row |= {"installation_uuid": CINDER, "created_at": "2026-01-31T12:00:00Z"}
    one = name.removesuffix("s")
    results = [{"status": 201, one: row | {"instance_id": it["instance_id"]}} for it in items]
    return shown({name: results})


def refusing(asked: Asked) -> Reply:
    error = schemas.described(ImageBeingDeleted("wait"))
    return shown({"relations": [{"status": 409, "error": error}]})


class Row:
    """A new row in Cinder's database."""

    def __init__(self, row_id: str = "volume-1") -> None:
        self.id, self.project_id, self.is_destroyed = row_id, "demo", False

    def destroy(self) -> None:
        self.is_destroyed = True


def create(reports: Reports, row: Row, error: Exception | None = None, **source: Any) -> Any:
    """Create a volume as ``API.create`` does, whose signature the wrapper reads."""

    def run(*args: Any, **kwargs: Any) -> Any:
        task = cinder_origins.report_new_row(lambda self, context, **_: {"volume": row})
        made = task(None, "context")
        if error:
            raise error
        return made["volume"]

    function: Callable[..., Any] = run
    function.__signature__ = inspect.signature(  # type: ignore[attr-defined]
        cinder.CINDER.find(cinder.CREATE_VOLUME)[2]
    )
    wrapped = cinder_origins.report_creation(reports, function)
    return wrapped(None, "context", 1, "name", None, **source)


def volume(volume_id: str, resource_type: str = "volume") -> dict[str, str]:
    ids = {"installation_uuid": CINDER, "instance_id": volume_id}
    return ids | {"resource_type": resource_type}


def origins(glance: Scripted) -> list[tuple[str, str, Any]]:
    """The type, the ID and the source of each reported origin."""
    bodies = [json.loads(asked.body) for asked in glance.of("POST", "/v2/origins")]
    items = [item for body in bodies for item in body["origins"]]
    return [(item["resource_type"], item["instance_id"], item["source"]) for item in items]


def test_a_volume_from_an_image_is_reported(glance: Scripted, reports: Reports) -> None:
    create(reports, Row(), image_id=IMAGE.upper())
    ((asked),) = glance.of("POST", "/v2/relations")
    assert json.loads(asked.body) == {
        "relations": [
            {**volume("volume-1"), "image_id": IMAGE, "kind": "boot", "instance_project_id": "demo"}
        ]
    }


@pytest.mark.parametrize(
    ("argument", "resource_type"),
    [
        ("snapshot", "volume-snapshot"),
        ("source_volume", "volume"),
        ("backup", "volume-backup"),
        (None, None),
    ],
)
def test_the_source_of_a_volume_is_reported(
    glance: Scripted, reports: Reports, argument: str | None, resource_type: str | None
) -> None:
    given: dict[str, Any] = {argument: SimpleNamespace(id="source-1")} if argument else {}
    create(reports, Row(), **given)
    source = volume("source-1", resource_type) if resource_type else None
    assert origins(glance) == [("volume", "volume-1", source)]


def test_a_volume_from_an_image_that_is_being_deleted_is_not_created(
    glance: Scripted, reports: Reports
) -> None:
    glance.script = refusing
    row = Row()
    with pytest.raises(ImageNotFound, match=IMAGE):
        create(reports, row, image_id=IMAGE)
    assert row.is_destroyed


def test_a_volume_that_cinder_does_not_create_ends(glance: Scripted, reports: Reports) -> None:
    with pytest.raises(InvalidVolume):
        create(reports, Row(), InvalidVolume(reason="quota"), image_id=IMAGE)
    (ended,) = [asked for asked in glance.asked if asked.method == "DELETE"]
    assert ended.path == f"/v2/instances/{CINDER}/volume-1"
    assert "resource_type=volume" in ended.query


@pytest.mark.parametrize("reply", [Reply(503, b"{}"), Reply(200, b"<html>"), Reply(404, b"{}")])
def test_a_lost_report_fails_no_volume(
    glance: Scripted, reports: Reports, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    glance.script = lambda _: reply
    row = Row()
    assert create(reports, row, image_id=IMAGE) is row
    assert not row.is_destroyed
    assert "the source of a volume is not reported" in caplog.text


def reimage(reports: Reports, error: Exception | None = None) -> None:
    def function(
        self: Any, context: Any, volume: Any, image_id: str, image_snap: Any = None
    ) -> None:
        if error:
            raise error

    cinder_origins.report_reimage(reports, function)(None, "context", Row(), IMAGE)


def test_a_reimage_is_reported_and_rolled_back_if_it_fails(
    glance: Scripted, reports: Reports
) -> None:
    reimage(reports)
    assert len(glance.of("POST", "/v2/relations")) == 1
    assert glance.of("DELETE", f"/v2/images/{IMAGE}/relations/{CINDER}/volume-1/boot") == []
    with pytest.raises(InvalidVolume):
        reimage(reports, InvalidVolume(reason="in use"))
    assert [asked.method for asked in glance.asked][-1] == "DELETE"


def test_a_reimage_from_an_image_that_is_being_deleted_fails(
    glance: Scripted, reports: Reports
) -> None:
    glance.script = refusing
    with pytest.raises(ImageNotFound):
        reimage(reports)


def test_snapshots_and_backups_come_from_volumes(glance: Scripted, reports: Reports) -> None:
    def snapshot(self: Any, context: Any, volume: Any) -> Any:
        return Row("snapshot-1")

    def backup(self: Any, context: Any, name: str) -> Any:
        return SimpleNamespace(id="backup-1", volume_id="volume-1", project_id="demo")

    def restore(self: Any, context: Any, backup_id: str) -> Any:
        return {"backup_id": backup_id, "volume_id": "volume-2"}

    cinder_origins.report_snapshot(reports, snapshot)(None, "context", Row())
    cinder_origins.report_backup(reports, backup)(None, "context", "a name")
    cinder_origins.report_restoration(reports, restore)(None, "context", "backup-1")
    assert origins(glance) == [
        ("volume-snapshot", "snapshot-1", volume("volume-1")),
        ("volume-backup", "backup-1", volume("volume-1")),
        ("volume", "volume-2", volume("backup-1", "volume-backup")),
    ]
