"""``server backup run`` with real services: servers on disks and on volumes, night after night.

All servers of a project are backed up, so that the project has no servers of other tests.
"""

import json
import math
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from related_images.client.backups import (
    Ages,
    Backup,
    BackupRun,
    Inventory,
    Limits,
    Policy,
    Search,
    ServerRun,
    Servers,
    VolumeSnapshots,
    plan,
)
from related_images.model import InstanceRef
from tests.cloud.cloud import BIN, PATIENCE, Cloud, eventually
from tests.cloud.flaky import flaky
from tests.cloud.nights import LABEL, Made, Nights, lines
from tests.cloud.plan import INSTALLATION
from tests.cloud.volume_actions import VolumeActions

OWNER: Final = "carol"
"""A user whose project has no other servers."""
NIGHTS: Final = int(os.environ.get("RELATED_IMAGES_NIGHTS", "8"))
KILLS: Final = int(os.environ.get("RELATED_IMAGES_KILLED_RUNS", "3"))
IN_A_ROW: Final = 3
"""The number of runs that are killed before one may end."""
ON_DISK: Final = ("active", "stopped", "locked", "shelved", "rescued")
ON_VOLUMES: Final = ("v-active", "v-stopped", "v-paused", "v-error", "v-changed")
BACKED_UP: Final = {"active", "stopped", "locked", "v-active", "v-stopped", "v-paused", "v-changed"}
"""The servers that are backed up every night; the others only in the first one."""

SERVICES: Final = {
    "image": ("glance", ""),
    "compute": ("nova", "/v2.1"),
    "block_storage": ("cinder", "/v3"),
}
"""The name of each service in the plan of the cloud, and the path of its endpoint."""

ODDS: Final = 0.05
"""The share of requests that fail."""

RULES: Final = Policy(daily=4, weekly=2)
RUN: Final = ("server", "backup", "run", "--label", LABEL, "--older-than", "20h")
KEEP: Final = ("--keep-daily", "4", "--keep-weekly", "2")
PARALLEL: Final = ("--max-parallel", "10", "--max-parallel-per-host", "10")


@pytest.fixture(scope="module")
def nights(cloud: Cloud) -> Iterator[Nights]:
    made = Nights(cloud, who=OWNER)
    made.create(ON_DISK, ON_VOLUMES)
    yield made
    # a volume with volume snapshots cannot be deleted with its server
    for each in (one for found in made.backups().values() for one in found):
        cloud.connection(OWNER).image.delete_image(each.image_id)
    storage = cloud.connection(OWNER).block_storage
    for one in storage.snapshots():
        storage.delete_snapshot(one.id)
    eventually(lambda: not made.volume_snapshots(OWNER), "the end of the volume snapshots")
    for server_id in made.servers.values():
        cloud.connection("admin").compute.delete_server(server_id)


def test_each_server_has_the_backups_of_the_rules(cloud: Cloud, nights: Nights) -> None:
    others: dict[str, set[str]] = {OWNER: set(), "bob": set()}
    for night in range(NIGHTS):
        before = nights.backups()
        runs = {run.server.name: run for run in back_up(cloud)}
        states = {name: run.state for name, run in runs.items()}
        made = {name for name, state in states.items() if state == "backed up"}
        assert made == (BACKED_UP if night else set(nights.servers)), states
        assert set(states.values()) <= {"backed up", "skipped"}
        found = nights.backups()
        for name in nights.servers:
            kept = by_rules(before[name], found[name], runs[name].image_id)
            assert {each.image_id for each in found[name]} == kept, (night, name)
        check_volume_snapshots(nights, others[OWNER])
        if not night:
            put_into_states(cloud, nights)
            others = name_others(cloud, nights)
            check_named_are_listed(cloud, nights, others)
        nights.pass_a_day()
    done = cloud.command("openstack", *RUN, *KEEP, *PARALLEL, OS_CLOUD=OWNER)
    assert done.returncode == 1, done.stderr
    assert {name for name, row in lines(done.stdout).items() if row["state"] == "skipped"} == set(
        nights.servers
    ) - BACKED_UP
    # with the rights of an administrator too, properties of images decide nothing
    project = cloud.connection(OWNER).current_project_id
    words = ("server", "backup", "prune", "--project", project, "--label", LABEL)
    cloud.openstack("admin", *words, "--keep-last", "1")
    assert {name: len(left) for name, left in nights.backups().items()} == dict.fromkeys(
        nights.servers, 1
    )
    check_volume_snapshots(nights, others[OWNER])
    assert nights.volume_snapshots("bob") == others["bob"]


def back_up(cloud: Cloud) -> list[ServerRun]:
    """Do what the command does; starting the program every night would take minutes."""
    user = cloud.connection(OWNER)
    inventory = Inventory(user, VolumeSnapshots(user.block_storage))
    rules = Ages(timedelta(hours=20)), RULES
    limits, owner = Limits(10, 10), user.current_project_id
    running = BackupRun(
        Search(inventory, LABEL), Servers(user.compute), rules, owner=owner, limits=limits
    )
    runs = running.plan(running.servers.list())
    list(running.run(runs))
    pruning = running.prune(runs)
    faults = [verdict.fault for verdict in pruning.run() if verdict.fault]
    assert faults == pruning.faults == []
    return runs


def by_rules(before: list[Made], found: list[Made], new: str | None) -> set[str]:
    """Return the images that the rules keep of those before the run and the new one."""
    if new is None:
        return {each.image_id for each in before}
    ref = InstanceRef(INSTALLATION, "server")
    made = [*before, *(each for each in found if each.image_id == new)]
    backups = [Backup(each.image_id, ref, LABEL, each.created_at) for each in made]
    return {one.backup.image_id for one in plan(backups, RULES, datetime.now(UTC)) if one.keep}


def check_volume_snapshots(nights: Nights, others: set[str]) -> None:
    """Check that the owner has the volume snapshots of the backups and ``others``, and no more."""
    made = [each for found in nights.backups().values() for each in found]
    needed = {one for each in made for one in each.volume_snapshots}
    assert nights.volume_snapshots(OWNER) == needed | others


def put_into_states(cloud: Cloud, nights: Nights) -> None:
    user, servers = cloud.connection(OWNER).compute, nights.servers
    for name in ("stopped", "v-stopped"):
        user.stop_server(servers[name])
    user.lock_server(servers["locked"])
    user.shelve_server(servers["shelved"])
    user.rescue_server(servers["rescued"])
    user.pause_server(servers["v-paused"])
    cloud.connection("admin").compute.reset_server_state(servers["v-error"], "error")
    for name, status in {
        "stopped": "SHUTOFF",
        "v-stopped": "SHUTOFF",
        "shelved": "SHELVED_OFFLOADED",
        "rescued": "RESCUE",
        "v-paused": "PAUSED",
        "v-error": "ERROR",
    }.items():
        nights.reaches(servers[name], status)


def name_others(cloud: Cloud, nights: Nights) -> dict[str, set[str]]:
    """Make volume snapshots that are no backups, and let properties of backups name them.

    :returns: the volume snapshots by their user
    """
    actions = VolumeActions(cloud, OWNER)
    others = {OWNER: {actions.snapshot(actions.volume("precious"))}, "bob": {of_bob(cloud)}}
    named = [*others[OWNER], *others["bob"]]
    mapping = [{"source_type": "snapshot", "snapshot_id": one} for one in named]
    images = cloud.connection(OWNER).image
    for name in ("v-changed", "active"):
        for made in nights.backups()[name]:
            images.update_image(made.image_id, block_device_mapping=json.dumps(mapping))
    return others


def check_named_are_listed(cloud: Cloud, nights: Nights, others: dict[str, set[str]]) -> None:
    """Check that ``prune`` lists the volume snapshots that only properties of the backup name."""
    words = ("server", "backup", "prune", "--keep-last", "1", "--dry-run")
    (row,) = cloud.shown(OWNER, *words, nights.servers["v-changed"])
    listed = row["Reasons"].partition("refer to them: ")[2].split()
    assert set(listed) == others[OWNER] | others["bob"]


def of_bob(cloud: Cloud) -> str:
    storage = cloud.connection("bob").block_storage
    volume = storage.create_volume(name="bob", size=1)
    eventually(lambda: storage.get_volume(volume.id).status == "available", "a volume")
    made = storage.create_snapshot(volume_id=volume.id, name="of bob")
    eventually(lambda: storage.get_snapshot(made.id).status == "available", "a snapshot")
    return str(made.id)


@pytest.mark.parametrize("seed", range(math.ceil(KILLS / IN_A_ROW)))
def test_killed_runs_lose_nothing(cloud: Cloud, nights: Nights, seed: int, tmp_path: Path) -> None:
    """Kill runs at random, with services that fail at random, and then let one end."""
    chance = random.Random(seed)
    nights.pass_a_day()
    before = nights.backups()
    needed = {one for found in before.values() for each in found for one in each.volume_snapshots}
    others = nights.volume_snapshots(OWNER) - needed
    with ExitStack() as stack:
        proxies = {
            kind: stack.enter_context(flaky(cloud.plan.urls[name] + path, ODDS, seed))
            for kind, (name, path) in SERVICES.items()
        }
        clouds = through(cloud, proxies, tmp_path)
        for _ in range(IN_A_ROW):
            killed(clouds, chance.uniform(3, 20))
            check_nothing_is_lost(nights, before)
    # what Nova began for a killed run ends without it
    for server_id in nights.servers.values():
        eventually(partial(is_idle, cloud, server_id), "Nova")
    done = cloud.command("openstack", *RUN, *KEEP, *PARALLEL, OS_CLOUD=OWNER)
    states = {row["state"] for row in lines(done.stdout).values()}
    assert states <= {"backed up", "not due", "skipped"}, done.stderr
    check_nothing_is_lost(nights, before)
    check_volume_snapshots(nights, others)


def through(cloud: Cloud, proxies: dict[str, str], directory: Path) -> Path:
    """Write a clouds.yaml in which the owner uses the proxies of the services."""
    clouds = json.loads(cloud.plan.clouds.read_text())
    for kind, url in proxies.items():
        clouds["clouds"][OWNER][f"{kind}_endpoint_override"] = url
    path = directory / "clouds.yaml"
    path.write_text(json.dumps(clouds))
    return path


def killed(clouds: Path, seconds: float) -> None:
    """Begin a run, and kill it after some seconds."""
    running = subprocess.Popen(
        [BIN / "openstack", *RUN, *KEEP, *PARALLEL],
        env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": OWNER},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    running.kill()
    running.wait(PATIENCE)


def is_idle(cloud: Cloud, server_id: str) -> bool:
    return cloud.connection("admin").compute.get_server(server_id).task_state is None


def check_nothing_is_lost(nights: Nights, before: dict[str, list[Made]]) -> None:
    """Check that only servers with a new backup lost some, and only such as the rules delete."""
    now, there = nights.backups(), nights.volume_snapshots(OWNER)
    for name, known in before.items():
        left = {each.image_id for each in now[name]}
        deleted = {each.image_id for each in known} - left
        new = [each for each in now[name] if each not in known]
        if deleted:
            assert new, f"{name} has no new backup, and lost {deleted}"
            assert not deleted & by_rules(known, new, new[0].image_id)
        for each in now[name]:
            assert there.issuperset(each.volume_snapshots), (name, each)
