"""Reconcile and backfill, compared with listing the same images with python-glanceclient."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks import filling
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, in_turns, ratio
from benchmarks.serving import ADMIN
from benchmarks.sizes import Sizes
from related_images.db import schema
from tests.servers import RELATED_IMAGES, ServedGlance

AIM: Final = Aim(1.0)
CLAIMED: Final = 5
"""The number of properties of each image, among them those that Nova sets."""
UNHURRIED: Final = "10000"
"""The rate limit in requests per second; the default spares Glance."""

PAGING: Final = """\
import sys
from glanceclient import Client
from keystoneauth1 import adapter, session, token_endpoint
url, token = sys.argv[1:]
session = session.Session(auth=token_endpoint.Token(url, token))
images = Client("2", session=session, endpoint_override=url).images
print("all", sum(1 for _ in images.list(page_size=1000)), "images")
"""

# measured by a small process: a child's ru_maxrss includes the memory of its parent at the fork
_WEIGHING: Final = """\
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    for images in sizes.upkeep:
        yield from _at(directory / str(images), Cloud(images), min(3, sizes.rounds))


def _at(directory: Path, cloud: Cloud, rounds: int) -> Iterator[Result]:
    directory.mkdir()
    filling.fill(_filled(directory), cloud)
    with ServedGlance(directory) as served:
        filling.fill_glance(f"sqlite:///{directory}/glance.db", cloud, CLAIMED)
        served.restart()  # at its start, it collects the statistics of SQLite
        sides = _sides(directory, served.url, cloud.relations, rounds)
        taken = in_turns(sides, rounds, budget=600)
    for name in ("reconcile", "backfill"):
        yield Result(
            f"related-images {name}",
            "paging with python-glanceclient",
            f"{cloud.relations:,} images",
            "s",
            taken[name],
            taken["paging"],
            ratio(taken[name], taken["paging"]),
            aim=AIM,
            note=f"peak memory {sides[name].peak:.0f} MiB",
        )


def _sides(directory: Path, url: str, images: int, rounds: int) -> "dict[str, Command]":
    named = ["--os-auth-type", "admin_token", "--os-token", ADMIN, "--os-endpoint", url]
    ours = [sys.executable, "-c", RELATED_IMAGES]
    reconcile = [*ours, "reconcile", "--connection", _filled(directory), "--rate", UNHURRIED]
    backfill = [*ours, "backfill", "--installation", filling.INSTALLATION, *named, "--connection"]
    empty = iter([_empty(directory) for _ in range(rounds + 1)])
    paging = [sys.executable, "-c", PAGING, url, ADMIN]
    return {
        "reconcile": Command(lambda: [*reconcile, *named], f'"present": {images},'),
        "backfill": Command(lambda: [*backfill, next(empty)], f"recorded: {images},"),
        "paging": Command(lambda: paging, f"all {images} images"),
    }


def _filled(directory: Path) -> str:
    return f"sqlite:///{directory}/related-images.db"


def _empty(directory: Path) -> str:
    """Return a new database for each backfill; a second backfill would find nothing to do."""
    url = f"sqlite:///{directory}/backfill-{uuid4()}.db"
    schema.upgrade(url)
    return url


@dataclass
class Command:
    """A command; each call runs it once. ``peak`` is its peak memory in MiB.

    It prints ``says`` if it processed all images.
    """

    line: Callable[[], list[str]]
    says: str
    peak: float = 0.0

    def __call__(self) -> None:
        line = self.line()
        done = subprocess.run(
            [sys.executable, "-c", _WEIGHING, *line], capture_output=True, text=True, check=False
        )
        if done.returncode or self.says not in done.stdout:
            raise RuntimeError(f"it did not end with {self.says!r}: {done.stdout}{done.stderr}")
        self.peak = max(self.peak, int(done.stdout.split()[-1]) / 1024)
