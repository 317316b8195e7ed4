"""``related-images backfill`` with a real Glance."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.engine import make_url

from related_images.client.errors import InvalidResponse
from related_images.client.glance import Answer, Glance
from related_images.db import (
    Database,
    Filters,
    NewRelation,
    Relation,
    Reporter,
    instances,
    relation_queries,
    schema,
    stored_state,
)
from related_images.db.notifications import Started, store
from related_images.db.recording import announce, attach
from related_images.manage import backfill
from related_images.model import InstanceRef
from related_images.validation import parse_time
from tests import commands
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
INSTANCE = "6f70656e-7374-4163-8b20-6e6f76612031"
OTHER = "6f70656e-7374-4163-8b20-6e6f76612032"
ALICE = ServedGlance.token("alice", "demo")
MALLORY = ServedGlance.token("mallory", "elsewhere")
ADMIN = ServedGlance.token("root", "administration", "admin")
NOW = parse_time("now", "2026-01-31T12:00:00Z")
BASE = "0b5c1f6e-2f0e-4f3e-9f7a-3c1d0a7b9e55"
BY_NOVA = {
    "instance_uuid": INSTANCE,
    "image_type": "snapshot",
    "user_id": "alice",
    "base_image_ref": BASE,
}
BY_CINDER = {
    "instance_uuid": INSTANCE,
    "image_type": "backup",
    "backup_type": "daily",
    "user_id": "alice",
    "disk_format": "raw",
    "container_format": "bare",
}
"""The properties that `openstack image create --volume` sets, for a volume made from a backup."""


@dataclass(frozen=True)
class Cloud:
    """A Glance with images, and a database without relations."""

    glance: ServedGlance
    url: str

    @property
    def database(self) -> Database:
        return Database(self.url, 20)

    def image(self, token: str = ALICE, **properties: Any) -> str:
        return self.create({**BY_NOVA, **properties}, token)

    def create(self, body: dict[str, Any], token: str = ALICE) -> str:
        answer = self.glance.request("POST", "/v2/images", token, body=body)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def upload(self, image_id: str, data: bytes) -> None:
        answer = self.glance.request("PUT", f"/v2/images/{image_id}/file", ALICE, body=data)
        assert answer.status == 204, answer.body

    def relations(self) -> dict[str, Relation]:
        found = self.database.read(relation_queries.find, Filters(), 1000)
        return {row.image_id: row for row in found if row.kind != "boot"}

    def run(self, *options: str, token: str = ADMIN) -> int:
        glance = ["--os-auth-type", "admin_token", "--os-token", token]
        glance += ["--os-endpoint", self.glance.url]
        command = ["backfill", "--connection", self.url, "--installation", NOVA]
        return commands.run(*command, *glance, *options)


@pytest.fixture(scope="module")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A Glance without images of other tests, since a backfill counts every image."""
    with ServedGlance(tmp_path_factory.mktemp("backfill")) as served:
        yield served


@pytest.fixture
def cloud(glance: ServedGlance, sqlite_url: str) -> Iterator[Cloud]:
    schema.upgrade(make_url(sqlite_url))
    yield Cloud(glance, sqlite_url)
    for hidden in ("false", "true"):
        query = f"visibility=all&limit=1000&os_hidden={hidden}"
        for image in glance.request("GET", f"/v2/images?{query}", ADMIN).json["images"]:
            glance.request("DELETE", f"/v2/images/{image['id']}", ADMIN)


def report(cloud: Cloud, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    capsys.readouterr()
    assert cloud.run("-f", "json", *options) == 0
    return json.loads(capsys.readouterr().out)


def test_credible_relations_are_recorded(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = cloud.image()
    backup = cloud.image(image_type="backup", backup_type="daily", os_hidden=True)
    cloud.glance.request("POST", "/v2/images", ALICE, body={"name": "not made by Nova"})
    printed = report(cloud, capsys)
    assert printed["doubted"] == []
    counts = {"images": 3, "recorded": 2, "known": 0, "doubted": 0, "unreadable": 0}
    assert printed["counts"] == {**counts, "dry_run": False}
    recorded = cloud.relations()
    assert {id: (row.kind, row.label, row.source) for id, row in recorded.items()} == {
        snapshot: ("snapshot", None, "backfill"),
        backup: ("backup", "daily", "backfill"),
    }
    assert {(row.instance_id, row.project_id) for row in recorded.values()} == {(INSTANCE, "demo")}
    image = cloud.glance.request("GET", f"/v2/images/{backup}", ALICE).json
    assert recorded[backup].created_at == parse_time("created_at", image["created_at"])


def test_a_second_run_changes_nothing(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.image()
    report(cloud, capsys)
    before = cloud.relations()
    assert report(cloud, capsys)["counts"]["known"] == 1
    assert cloud.relations() == before


def test_a_dry_run_reports_the_outcome_and_records_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.image()
    cloud.image(bdm_v2="True")
    dry = report(cloud, capsys, "--dry-run")
    assert cloud.relations() == {}
    real = report(cloud, capsys)
    assert dry["counts"] == {**real["counts"], "dry_run": True}
    assert dry["doubted"] == real["doubted"]


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"bdm_v2": "True", "block_device_mapping": "[{}]"}, "booted from a volume"),
        ({"instance_uuid": "my favourite"}, "instance_uuid is not a server ID"),
        ({"image_type": "holiday"}, "which Nova never sets"),
        ({"user_id": ""}, "user_id is missing"),
        ({"base_image_ref": ""}, "base_image_ref is ''"),
        ({"base_image_ref": "cirros"}, "base_image_ref is 'cirros'"),
    ],
)
def test_contradictory_properties_are_rejected(
    cloud: Cloud,
    capsys: pytest.CaptureFixture[str],
    properties: dict[str, str],
    reason: str,
) -> None:
    image_id = cloud.image(**properties)
    (row,) = report(cloud, capsys)["doubted"]
    assert (row["image_id"], row["project_id"]) == (image_id, "demo")
    assert reason in row["reason"]
    assert cloud.relations() == {}


def test_an_image_that_cinder_uploaded_from_a_backup_is_rejected(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    daily = {"image_type": "backup", "backup_type": "daily"}
    made_by_nova = {cloud.image(**daily) for _ in range(2)}
    uploaded = cloud.create(BY_CINDER)
    cloud.upload(uploaded, b"a volume")
    (row,) = report(cloud, capsys)["doubted"]
    assert (row["image_id"], row["instance_id"]) == (uploaded, INSTANCE)
    assert row["reason"].startswith("Cinder uploaded the image, or a user set its properties")
    assert set(cloud.relations()) == made_by_nova


@pytest.mark.parametrize("missing", ["instance_uuid", "image_type", "user_id", "base_image_ref"])
def test_an_image_without_a_property_that_nova_always_sets_is_rejected(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    image_id = cloud.create({name: text for name, text in BY_NOVA.items() if name != missing})
    (row,) = report(cloud, capsys)["doubted"]
    assert row["image_id"] == image_id
    assert cloud.relations() == {}


def test_an_image_without_data_is_of_a_server_booted_from_a_volume(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    image_id = cloud.image(disk_format="raw", container_format="bare")
    cloud.upload(image_id, b"")
    (row,) = report(cloud, capsys)["doubted"]
    assert row["image_id"] == image_id
    assert "booted from a volume" in row["reason"]


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize("roles", ["member", "reader", "service", "member,service"])
def test_an_account_without_the_admin_role_is_refused(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], roles: str, options: tuple[str, ...]
) -> None:
    cloud.image()
    capsys.readouterr()
    assert cloud.run(*options, token=ServedGlance.token("alice", "demo", roles)) == 1
    printed = capsys.readouterr()
    assert "use an account with the admin role" in printed.err
    assert printed.out == ""
    assert cloud.relations() == {}


def test_images_of_another_project_are_rejected(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    base = cloud.image(instance_uuid=OTHER)
    store(cloud.database, [Started(InstanceRef(NOVA, INSTANCE), "demo", NOW, base)])
    mine, foreign = cloud.image(), cloud.image(MALLORY)
    (row,) = report(cloud, capsys)["doubted"]
    assert row["image_id"] == foreign
    assert row["reason"] == "its server belongs to another project"
    assert set(cloud.relations()) == {base, mine}


def test_the_oldest_image_decides_the_project_of_an_unknown_server(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, foreign = cloud.image(), cloud.image(MALLORY)
    (row,) = report(cloud, capsys)["doubted"]
    assert (row["image_id"], set(cloud.relations())) == (foreign, {mine})


def test_the_oldest_recorded_image_decides_in_a_later_run(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = cloud.image()
    report(cloud, capsys)
    foreign = cloud.image(MALLORY)
    (row,) = report(cloud, capsys)["doubted"]
    assert (row["image_id"], set(cloud.relations())) == (foreign, {mine})


def test_a_backfilled_relation_does_not_set_the_project_of_a_server(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.image(MALLORY)
    report(cloud, capsys)
    reported = NewRelation(
        *(InstanceRef(NOVA, INSTANCE), cloud.image(), "snapshot", None, "service", "demo", NOW),
        instance_project_id="demo",
    )
    announce(cloud.database, reported, Reporter(frozenset()))
    base = cloud.image(instance_uuid=OTHER)
    boot = NewRelation(InstanceRef(NOVA, INSTANCE), base, "boot", None, "service", None, NOW)
    started, _ = attach(cloud.database, boot, Reporter(frozenset()))
    assert started.project_id == "demo"
    (instance,) = cloud.database.read(instances._find, Filters(instance_id=INSTANCE), 2)
    assert instance.project_id == "demo"
    late = cloud.image(MALLORY)
    (row,) = report(cloud, capsys)["doubted"]
    assert row["image_id"] == late


@pytest.mark.parametrize("starts", [0, 150])
def test_an_image_with_another_recorded_relation_is_rejected(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], starts: int
) -> None:
    forged = cloud.image()
    recorded = NewRelation(
        InstanceRef(NOVA, OTHER), forged, "snapshot", None, "service", "demo", NOW
    )
    attach(cloud.database, recorded, Reporter(frozenset()))
    later = NOW + timedelta(minutes=1)
    store(
        cloud.database,
        [Started(InstanceRef(NOVA, f"vm-{n}"), "demo", later, forged) for n in range(starts)],
    )
    (row,) = report(cloud, capsys)["doubted"]
    assert row["image_id"] == forged
    assert f"it is recorded as a snapshot of the server {OTHER}" in row["reason"]
    assert cloud.relations()[forged].instance_id == OTHER


@pytest.mark.parametrize("marker_stays", [True, False])
def test_the_next_run_continues_an_interrupted_one(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], marker_stays: bool
) -> None:
    seen, rest = cloud.image(), cloud.image()
    position = f"backfill-position:{NOVA}"
    cloud.database.write(stored_state.put, position, f"false {seen}")
    if not marker_stays:
        cloud.glance.request("DELETE", f"/v2/images/{seen}", ADMIN)
    assert report(cloud, capsys)["counts"]["images"] == 1
    assert set(cloud.relations()) == {rest}
    assert cloud.database.read(stored_state.get, position) is None


def test_each_page_starts_after_the_previous_one(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, queries, request = [cloud.image() for _ in range(4)], list[Any](), Glance.request

    def logged(*args: Any, **options: Any) -> Answer:
        queries.append(options["params"])
        return request(*args, **options)

    monkeypatch.setattr(backfill, "PAGE", 2)
    monkeypatch.setattr(Glance, "request", logged)
    assert report(cloud, capsys)["counts"]["images"] == 4
    assert set(cloud.relations()) == set(images)
    later = [query for query in queries if query.get("marker")]
    assert [query["marker"] for query in later] == images[1::2]
    assert all(query["created_at"].startswith("gte:2") for query in later)


def test_all_short_pages_are_read(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema.upgrade(make_url(sqlite_url))
    short = "[DEFAULT]\napi_limit_max = 3\nlimit_param_default = 2"
    with ServedGlance(tmp_path / "short", glance_conf=short) as glance:
        cloud = Cloud(glance, sqlite_url)
        images = {cloud.image(os_hidden=number % 4 == 0) for number in range(9)}
        assert report(cloud, capsys)["counts"]["recorded"] == 9
        assert set(cloud.relations()) == images


def test_a_page_that_ends_with_its_marker_is_refused() -> None:
    image = {"id": OTHER, "created_at": "2026-01-31T12:00:00Z"}
    stuck = Mock(request=lambda *_, **__: Answer("GET", 200, {}, lambda: {"images": [image]}))
    pages = backfill._pages(stuck, backfill.FIRST_PAGE)
    assert len([next(pages), next(pages)]) == 2
    with pytest.raises(InvalidResponse, match="the last image of the page is its marker"):
        next(pages)


def test_the_table_ends_with_the_counts(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    image_id = cloud.image(bdm_v2="True")
    capsys.readouterr()
    assert cloud.run() == 0
    header, row, counts = capsys.readouterr().out.splitlines()
    assert header.split() == ["image_id", "instance_id", "project_id", "reason"]
    assert row.split()[:3] == [image_id, INSTANCE, "demo"]
    assert counts.startswith("images: 1, recorded: 0, known: 0, doubted: 1")


def test_control_characters_in_properties_are_escaped(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.image(instance_uuid="\x1b[2J\nimages: 0")
    capsys.readouterr()
    assert cloud.run() == 0
    _, row, _ = capsys.readouterr().out.splitlines()
    assert r"'\x1b[2J\nimages: 0'" in row


def test_an_endpoint_that_is_not_nova_is_refused(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cloud.run("--ask-nova") == 1
    assert "omit --ask-nova" in capsys.readouterr().err
