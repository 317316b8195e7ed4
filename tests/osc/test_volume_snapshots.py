"""Volume snapshots of backups, with a real Glance and a scripted Cinder.

The Cinder of tests/cloud never keeps a volume snapshot that was to be deleted.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import pytest
from keystoneauth1.adapter import Adapter

from related_images.client.backups import Inventory, Policy, Pruning, VolumeSnapshots, decide
from related_images.client.backups.prune import without_image
from related_images.client.errors import ServiceFailed
from tests.client.clients import session
from tests.client.scripted import Asked, Reply, Scripted, shown
from tests.osc.aging import age
from tests.osc.running import Cloud, Instance
from tests.osc.test_server_backup import change, status

pytestmark = pytest.mark.slow

ONLY_NAMED: Final = (
    "these volume snapshots are not deleted with the image, because only its properties refer to "
    "them: "
)


@dataclass
class Cinder:
    """A scripted Cinder.

    :ivar busy: volume snapshots that it does not delete
    :ivar fails: whether it answers 500 to deletions
    """

    snapshots: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    fails: bool = False

    def answer(self, asked: Asked) -> Reply:
        name = asked.path.rpartition("/")[2]
        if asked.path == "/volumes/detail":
            volumes = [{"id": f"volume of {one}", "snapshot_id": one} for one in sorted(self.busy)]
            return shown({"volumes": volumes})
        if asked.path == "/snapshots":
            return shown({"snapshots": [self._shown(one) for one in self.snapshots]})
        if name not in self.snapshots:
            return shown({"itemNotFound": {"message": "no such snapshot", "code": 404}}, 404)
        if asked.method == "GET":
            return shown({"snapshot": self._shown(name)})
        if self.fails:
            return shown({"computeFault": {"message": "out of order", "code": 500}}, 500)
        if name not in self.busy:
            self.snapshots.remove(name)
        return Reply(202, b"")

    def _shown(self, id: str) -> dict[str, Any]:
        return {"id": id, "volume_id": "v", "status": "available", "size": 1}


@pytest.fixture
def cinder(scripted: Scripted) -> Cinder:
    found = Cinder()
    scripted.script = found.answer
    return found


@pytest.fixture
def inventory(instance: Instance, scripted: Scripted, cinder: Cinder) -> Inventory:
    storage = Adapter(session(scripted.url, instance.member), service_type="block-storage")
    return Inventory(_glance(instance), VolumeSnapshots(storage))


def _glance(instance: Instance) -> Adapter:
    return Adapter(session(instance.glance.url, instance.member), service_type="image")


def backup(instance: Instance, cinder: Cinder, days: float, *ids: str) -> str:
    """Make a backup as Nova does of a server on volumes."""
    cinder.snapshots.update(ids)
    image_id = instance.image(
        "on volumes",
        {"block_device_mapping": mapping(*ids)},
        kind="backup",
        label="daily",
    )
    instance.fill(image_id)
    age(instance, {image_id: days})
    return image_id


def mapping(*ids: str) -> str:
    return json.dumps([{"source_type": "snapshot", "snapshot_id": one} for one in ids])


def pruned(instance: Instance, inventory: Inventory) -> Pruning:
    """Keep one backup."""
    pruning = decide(inventory, list(inventory.instances(label="daily")), Policy(last=1))
    filters = {"installation_uuid": instance.installation}
    pruning.without_image.extend(without_image(inventory.without_image(**filters)))
    list(pruning.run())
    return pruning


def ids(number: int) -> list[str]:
    return [str(uuid4()) for _ in range(number)]


def test_volume_snapshots_are_deleted_with_their_image(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    (keep, *two), other = ids(3), ids(1)
    kept, gone = backup(instance, cinder, 1, keep), backup(instance, cinder, 2, *two)
    cinder.snapshots.update(other)
    pruned(instance, inventory)
    assert (status(instance, kept), status(instance, gone)) == (200, 404)
    assert cinder.snapshots == {keep, *other}


def test_properties_of_an_image_decide_nothing(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    keep, gone, victim = ids(3)
    backup(instance, cinder, 1, keep)
    image_id = backup(instance, cinder, 2, gone)
    cinder.snapshots.add(victim)
    change(instance, image_id, "block_device_mapping", mapping(victim))
    (verdict,) = [one for one in pruned(instance, inventory).verdicts if one.outcome == "removed"]
    assert verdict.reasons == ("no rule keeps it", ONLY_NAMED + victim)
    assert cinder.snapshots == {keep, victim}


@pytest.mark.parametrize("output", ["json", "value"])
def test_volume_snapshots_that_only_a_property_names_are_listed(
    instance: Instance, cinder: Cinder, scripted: Scripted, output: str
) -> None:
    known, *named = ids(3)
    image_id = backup(instance, cinder, 1, known)
    # Glance returns another backup with a mapping that is none
    other = backup(instance, cinder, 2)
    change(instance, image_id, "block_device_mapping", mapping(known, *named))
    change(instance, other, "block_device_mapping", "[" * 9_999)
    cloud = Cloud(instance.glance.url, instance.member, scripted.url)
    words = ("--keep-last", "1", "--dry-run", "-f", output, "-c", "Image ID", "-c", "Reasons")
    outcome = cloud.openstack("server", "backup", "prune", *words, instance.id)
    assert outcome.code == 0, outcome.errors
    reasons = {image_id: f"last, {ONLY_NAMED}{' '.join(named)}", other: "no rule keeps it"}
    if output == "json":
        assert {row["Image ID"]: row["Reasons"] for row in outcome.rows} == reasons
    else:
        assert outcome.said.splitlines() == [f"{id} {reason}" for id, reason in reasons.items()]


def test_a_changed_mapping_does_not_stop_a_deletion(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    keep, gone, named = ids(3)
    backup(instance, cinder, 1, keep)
    image_id = backup(instance, cinder, 2, gone)
    pruning = decide(inventory, list(inventory.instances(label="daily")), Policy(last=1))
    change(instance, image_id, "block_device_mapping", mapping(named))
    assert [one.outcome for one in pruning.run()] == ["removed"]
    assert cinder.snapshots == {keep}


def test_the_next_run_finds_what_a_killed_run_left(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    keep, left = ids(2)
    backup(instance, cinder, 1, keep)
    image_id = backup(instance, cinder, 2, left)
    path = f"/v2/images/{image_id}"
    assert instance.glance.request("DELETE", path, instance.member).status == 204
    pruning = pruned(instance, inventory)
    (verdict,) = pruning.without_image
    assert (verdict.outcome, verdict.decision.backup.image_id) == ("removed", image_id)
    assert cinder.snapshots == {keep}


def test_a_volume_snapshot_of_another_image_stays(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    (both,) = ids(1)
    backup(instance, cinder, 1, both)
    gone = backup(instance, cinder, 2, both)
    for _ in range(2):
        pruned(instance, inventory)
    assert status(instance, gone) == 404
    assert cinder.snapshots == {both}


def test_a_volume_snapshot_that_cinder_keeps_is_named_with_its_volume(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    keep, busy = ids(2)
    backup(instance, cinder, 1, keep)
    backup(instance, cinder, 2, busy)
    cinder.busy.add(busy)
    (fault,) = [one.fault for one in pruned(instance, inventory).verdicts if one.fault]
    assert f"volume snapshots remain: {busy}" in fault
    assert f"the volume volume of {busy} was made from it" in fault
    cinder.busy.clear()
    assert [one.fault for one in pruned(instance, inventory).verdicts if one.fault] == []
    assert cinder.snapshots == {keep}


def test_a_failure_of_cinder_is_a_failure_of_the_backup(
    instance: Instance, inventory: Inventory, cinder: Cinder
) -> None:
    keep, gone = ids(2)
    backup(instance, cinder, 1, keep)
    backup(instance, cinder, 2, gone)
    cinder.fails = True
    (verdict,) = [one for one in pruned(instance, inventory).verdicts if one.fault]
    assert verdict.outcome == "failed"
    assert "answered 500: out of order" in verdict.fault


def test_without_cinder_the_backup_is_kept(instance: Instance, cinder: Cinder) -> None:
    keep, gone = ids(2)
    backup(instance, cinder, 1, keep)
    image_id = backup(instance, cinder, 2, gone)
    (verdict,) = [
        one for one in pruned(instance, Inventory(_glance(instance))).verdicts if one.fault
    ]
    assert "there is no block storage service" in verdict.fault
    assert status(instance, image_id) == 200


@pytest.mark.parametrize("reply", [Reply(200, b"<html>"), shown({"volumes": []}), Reply(503)])
def test_a_response_that_is_not_cinders_is_an_error(scripted: Scripted, reply: Reply) -> None:
    scripted.script = lambda asked: reply
    storage = VolumeSnapshots(Adapter(session(scripted.url, "t"), service_type="block-storage"))
    with pytest.raises(ServiceFailed, match="of Cinder"):
        storage.find(ids(20))
