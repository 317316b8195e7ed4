"""Reconciling all relations, against paging through the same images with python-glanceclient."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import filling
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, in_turns, ratio
from benchmarks.serving import ADMIN
from benchmarks.sizes import Sizes
from tests.servers import RELATED_IMAGES, ServedGlance

AIM: Final = Aim(1.0)
UNHURRIED: Final = "10000"
"""Requests a second that are allowed; as it comes, reconciling spares the registry."""

_PAGING: Final = """\
import sys
from glanceclient import Client
from keystoneauth1 import adapter, session, token_endpoint
url, token = sys.argv[1:]
session = session.Session(auth=token_endpoint.Token(url, token))
images = Client("2", session=session, endpoint_override=url).images
print(sum(1 for _ in images.list(page_size=1000)))
"""


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    for images in (sizes.upkeep, 10 * sizes.upkeep):
        yield from _at(directory / str(images), Cloud(images))


def _at(directory: Path, cloud: Cloud) -> Iterator[Result]:
    directory.mkdir()
    url = f"sqlite:///{directory}/related-images.db"
    filling.fill(url, cloud)
    with ServedGlance(directory) as served:
        filling.fill_glance(directory / "glance.db", 1, cloud.relations, cloud, 2)
        named = ["--os-auth-type", "admin_token", "--os-token", ADMIN, "--os-endpoint", served.url]
        reconcile = ["reconcile", "--connection", url, "--rate", UNHURRIED, *named]
        sides = {
            "reconcile": lambda: _run([sys.executable, "-c", RELATED_IMAGES, *reconcile]),
            "paging": lambda: _run([sys.executable, "-c", _PAGING, served.url, ADMIN]),
        }
        taken = in_turns(sides, 3)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    yield Result(
        "related-images reconcile",
        "paging with python-glanceclient",
        f"{cloud.relations:,} images",
        "s",
        taken["reconcile"],
        taken["paging"],
        ratio(taken["reconcile"], taken["paging"]),
        aim=AIM,
        note=f"at most {peak:.0f} MiB until here",
    )


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{command[3:5]} failed: {result.stderr}")
