"""``prune --dry-run``, ``overdue`` and ``run``, compared with paging the same images."""

import gc
import math
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from sqlalchemy import text

from benchmarks import filling
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, Spread, in_turns, ratio
from benchmarks.serving import ADMIN
from benchmarks.sizes import Sizes
from benchmarks.upkeep import PAGING, Command
from related_images.client.backups import (
    Ages,
    BackupRun,
    Inventory,
    Limits,
    OverdueSearch,
    Policy,
    Search,
    Servers,
    decide,
)
from related_images.client.glance import PAGE
from related_images.protocol import paths
from tests.client.scripted import Scripted, serving
from tests.osc.compute import Compute
from tests.osc.running import Instance
from tests.servers import ServedGlance

Found = TypeVar("Found")

TIME: Final = Aim(1.5)
REQUESTS: Final = {"prune": Aim(100), "overdue": Aim(60), "run": Aim(300)}
BYTES: Final = Aim(1024)
KEPT: Final = 7
LATE: Final = 0.1
"""The share of the servers without a recent backup."""
DUE: Final = 0.02
"""The share of the servers that a run backs up."""
LABEL: Final = "daily"
OPENSTACK: Final = Path(sys.executable).parent / "openstack"

_ALL_BACKUPS: Final = (
    f"UPDATE related_relation SET kind = 2, label = '{LABEL}'",  # noqa: S608
    f"UPDATE related_image SET created_at = {filling.BEGIN} + id * 1000000",  # noqa: S608
)
"""All images are backups, and their creation time is known, as after their creation by Nova."""


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    servers, per_server = sizes.backups
    rounds = min(3, sizes.rounds)
    yield from _prune(directory / "prune", Cloud(servers * per_server, per_server), rounds)
    yield from _overdue(directory / "overdue", Cloud(servers * 5 * 3, 3), rounds)
    yield from _run(directory / "run", Cloud(servers // 2 * per_server, per_server))


def _prune(directory: Path, cloud: Cloud, rounds: int) -> Iterator[Result]:
    size = f"{cloud.instances:,} servers with {cloud.per_instance} backups, sqlite"
    what = "openstack server backup prune --dry-run"
    with Served(directory, cloud) as served:
        rules = ("--all-projects", "--keep-last", str(KEPT), "--dry-run", "-f", "value")
        found, removed = cloud.relations, cloud.relations - KEPT * cloud.instances
        sides = {
            "prune": Command(lambda: _openstack(served, "prune", *rules), "remove no rule keeps"),
            "paging": Command(lambda: _paging(served), f"all {found} images"),
        }
        taken = in_turns(sides, rounds, budget=200)
        read = _weighed(served, lambda inventory: _decide(inventory, removed))
    note = f"peak memory {sides['prune'].peak:.0f} MiB, paging {sides['paging'].peak:.0f} MiB"
    yield _compared(what, size, taken["prune"], taken["paging"], note)
    yield _counted(f"requests of {what}", size, read, cloud, REQUESTS["prune"])
    yield Result(
        "peak memory of the decisions, for each backup",
        "the JSON of its image",
        size,
        "bytes",
        _single(read.peak / found),
        _single(read.images / found),
        read.peak / found,
        value_unit="bytes",
        aim=BYTES,
    )


def _overdue(directory: Path, cloud: Cloud, rounds: int) -> Iterator[Result]:
    late = int(LATE * cloud.instances)
    size = f"{late:,} late of {cloud.instances:,} servers, sqlite"
    what = "openstack server backup overdue"
    rest = cloud.relations - cloud.instances + late
    # the first ones of the last round of backups are late
    since = datetime.fromtimestamp(filling.BEGIN / 10**6 + rest, UTC)

    def search(inventory: Inventory) -> None:
        now = datetime.now(UTC)
        found = list(OverdueSearch(inventory, now=now).overdue(Ages(now - since)))
        if not late - 1 <= len(found) <= late + 1 or not all(each.image_id for each in found):
            raise RuntimeError(f"{len(found)} servers were found, not {late}")

    with Served(directory, cloud) as served:
        sides: dict[str, Callable[[], object]] = {
            "overdue": lambda: search(Inventory(_adapter(served.url))),
            "paging": Command(lambda: _paging(served), f"all {cloud.relations} images"),
        }
        taken = in_turns(sides, rounds, budget=200)
        read = _weighed(served, search)
    yield _compared(what, size, taken["overdue"], taken["paging"], "in this process", aim=None)
    yield _counted(f"requests of {what}", size, read, cloud, REQUESTS["overdue"])


def _run(directory: Path, cloud: Cloud) -> Iterator[Result]:
    due = math.ceil(DUE * cloud.instances)
    size = f"{due:,} due of {cloud.instances:,} servers with {cloud.per_instance} backups, sqlite"
    what = "openstack server backup run"
    with Served(directory, cloud) as served:
        paging = Command(lambda: _paging(served), f"all {cloud.relations} images")
        taken = in_turns({"paging": paging}, 1, budget=200)
        phases = run_phases(served, cloud, due)
    note = ", ".join(f"{name} {phase.seconds:.1f} s" for name, phase in phases.items())
    seconds = sum(phase.seconds for phase in phases.values())
    sent = sum(phase.sent.total() for phase in phases.values())
    yield _compared(what, size, _single(seconds), taken["paging"], note, aim=None)
    yield _counted(f"requests of {what}", size, Read(sent), cloud, REQUESTS["run"])


@dataclass(frozen=True)
class Phase:
    """A part of a run: its time, and its requests by method and path."""

    seconds: float
    sent: Counter[str]


def run_phases(served: ServedGlance, cloud: Cloud, due: int) -> dict[str, Phase]:
    """Back up the servers that are due, and delete as many old backups.

    The images are real. Nova is scripted, and makes a backup at once.
    """
    now, sent, phases = datetime.now(UTC), Counter[str](), dict[str, Phase]()
    newest = cloud.relations - cloud.instances
    # the first ones of the last round of backups are due
    since = datetime.fromtimestamp(filling.BEGIN / 10**6 + newest + due + 0.5, UTC)

    def count(answer: requests.Response, **_: object) -> None:
        sent.update([f"{answer.request.method} {urlsplit(answer.url).path}"])

    def measure(name: str, action: Callable[[], Found]) -> Found:
        before, begun = sent.copy(), time.monotonic()
        found = action()
        phases[name] = Phase(time.monotonic() - begun, sent - before)
        return found

    with serving() as scripted:
        nova = _scripted_nova(scripted, served, cloud)
        inventory = Inventory(_adapter(served.url, count))
        servers = Servers(_adapter(nova.url, count, "compute"))
        rules = Ages(now - since), Policy(last=cloud.per_instance)
        running = BackupRun(Search(inventory, LABEL), servers, rules, limits=Limits(4, 4), now=now)
        runs = measure("find", lambda: running.plan(servers.list(all_projects=True)))
        measure("back up", lambda: list(running.run(runs)))
        pruning = measure("decide", lambda: running.prune(runs))
        removed = measure("delete", lambda: list(pruning.run()))
    states = Counter(run.state for run in runs)
    wanted = Counter({"backed up": due, "not due": cloud.instances - due})
    if states != wanted or [one.outcome for one in removed] != ["removed"] * due:
        raise RuntimeError(f"{states} and {len(removed)} deletions, not {wanted}")
    return phases


def _scripted_nova(scripted: Scripted, served: ServedGlance, cloud: Cloud) -> Compute:
    nova, known = Compute(scripted), dict[str, Instance]()
    for number in range(1, cloud.instances + 1):
        server, project = filling.instance_id(number), filling.project_id(number)
        nova.add(server, project)
        known[server] = Instance(served, filling.INSTALLATION, server, project)

    def make(server_id: str, metadata: dict[str, str]) -> str:
        instance, label = known[server_id], metadata["relation_label"]
        return instance.fill(instance.image("new", kind=metadata["relation_kind"], label=label))

    scripted.script, nova.make_image = nova.answer, make
    return nova


def _compared(
    what: str, size: str, ours: Spread, theirs: Spread, note: str, aim: Aim | None = TIME
) -> Result:
    value, paging = ratio(ours, theirs), "paging all images with python-glanceclient"
    return Result(what, paging, size, "s", ours, theirs, value, aim=aim, note=note)


def _counted(what: str, size: str, read: "Read", cloud: Cloud, aim: Aim) -> Result:
    return Result(
        what,
        "pages of all images",
        size,
        "requests",
        _single(read.sent),
        _single(math.ceil(cloud.relations / PAGE)),
        read.sent,
        value_unit="requests",
        aim=aim,
    )


def _single(value: float) -> Spread:
    return Spread(value, value, value, 1)


class Served:
    """A Glance with active images, all of which are recorded as backups."""

    def __init__(self, directory: Path, cloud: Cloud) -> None:
        directory.mkdir()
        self._directory, self._cloud = directory, cloud
        self._glance = ServedGlance(directory)

    def __enter__(self) -> ServedGlance:
        url = f"sqlite:///{self._directory}/related-images.db"
        filling.fill(url, self._cloud)
        with filling.connected(url) as connection:
            for statement in _ALL_BACKUPS:
                connection.execute(text(statement))
            filling.fill_latest(connection)
            filling.settle(connection)
        served = self._glance.__enter__()
        url = f"sqlite:///{self._directory}/glance.db"
        filling.fill_glance(url, self._cloud, 2)
        with filling.connected(url) as connection:
            connection.execute(text("UPDATE images SET status = 'active', size = 1"))
            connection.commit()
        served.restart()  # at its start, it collects the statistics of SQLite
        return served

    def __exit__(self, *raised: object) -> None:
        self._glance.__exit__(*raised)


def _openstack(served: ServedGlance, *command: str) -> list[str]:
    named = ("--os-auth-type", "admin_token", "--os-token", ADMIN, "--os-endpoint", served.url)
    return [str(OPENSTACK), *named, "server", "backup", *command]


def _paging(served: ServedGlance) -> list[str]:
    return [sys.executable, "-c", PAGING, served.url, ADMIN]


def _adapter(
    url: str, on_answer: Callable[..., Any] | None = None, service_type: str = "image"
) -> Adapter:
    transport = requests.Session()
    if on_answer is not None:
        transport.hooks["response"].append(on_answer)
    session = Session(auth=Token(url, ADMIN), session=transport)
    return Adapter(session, service_type=service_type)


def _decide(inventory: Inventory, removed: int) -> None:
    pruning = decide(inventory, inventory.instances(), Policy(last=KEPT))
    if pruning.due != removed or pruning.faults:
        raise RuntimeError(f"{pruning.due} backups are due, not {removed}: {pruning.faults}")


@dataclass
class Read:
    """What an action read.

    :ivar sent: the number of its requests
    :ivar images: the bytes of the lists of images
    :ivar peak: the peak of its memory in bytes
    """

    sent: int = 0
    images: int = 0
    peak: int = 0

    def add(self, answer: requests.Response, **_: object) -> None:
        self.sent += 1
        if f"{paths.API}{paths.IMAGES}?" in answer.url:
            self.images += len(answer.content)


def _weighed(served: ServedGlance, action: Callable[[Inventory], None]) -> Read:
    read = Read()
    inventory = Inventory(_adapter(served.url, read.add))
    gc.collect()
    tracemalloc.start()
    action(inventory)
    read.peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return read
