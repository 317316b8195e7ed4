"""Upload and download large images: the memory and the time that the filter adds."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.measuring import Aim, Result, Spread
from benchmarks.sizes import Sizes
from tests.functional import streams
from tests.functional.streams import Way
from tests.servers import ServedGlance

ADDED: Final = Aim(1.0)
ROUNDS: Final = 3
WAYS: Final = {
    "upload and download": Way("file", chunked=False),
    "chunked upload and download": Way("file", chunked=True),
    "staging": Way("stage", chunked=False),
    "chunked staging": Way("stage", chunked=True),
}


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    with (
        ServedGlance(directory / "with") as ours,
        ServedGlance(directory / "without", with_filter=False) as plain,
    ):
        for what, way in WAYS.items():
            yield _compare(ours, plain, what, way, sizes.stream)


def _compare(ours: ServedGlance, plain: ServedGlance, what: str, way: Way, size: int) -> Result:
    rounds = [(_sent(ours, way, size), _sent(plain, way, size)) for _ in range(ROUNDS)]
    with_filter = Spread.of([mine.peak for mine, _ in rounds])
    without = Spread.of([other.peak for _, other in rounds])
    seconds = [Spread.of([one.seconds for one in side]) for side in zip(*rounds, strict=True)]
    return Result(
        f"growth of peak memory by {what}",
        "the same without the filter",
        f"{size} MiB",
        "MiB",
        with_filter,
        without,
        with_filter.median - without.median,
        "MiB added",
        ADDED,
        f"same bytes; {seconds[0].median:.1f} s with, {seconds[1].median:.1f} s without",
    )


@dataclass(frozen=True)
class _Sent:
    """The growth of the peak memory in MiB, and the duration in seconds."""

    peak: float
    seconds: float


def _sent(served: ServedGlance, way: Way, size: int) -> _Sent:
    """Upload an image, download it, and check its bytes."""
    image_id = streams.new_image(served)
    served.peak_memory()
    before, begun = served.peak_memory(), time.perf_counter()
    if streams.send(served, image_id, way, size) != 204:
        raise RuntimeError(f"{way} was refused")
    if way.path == "file" and streams.fetched(served, image_id) != _checksum(size):
        raise RuntimeError(f"{way}: other bytes came back")
    grown, taken = served.peak_memory() - before, time.perf_counter() - begun
    served.request("DELETE", f"/v2/images/{image_id}", streams.TOKEN)
    return _Sent(grown / 2**20, taken)


@cache
def _checksum(size: int) -> str:
    return streams.checksum(streams.blocks(size))
