"""The cost of the filter for requests that pass through, with an app that does nothing."""

import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Aim, Result, Spread, in_turns, scaled
from benchmarks.serving import Client
from benchmarks.sizes import Sizes
from tests import filters, servers

CALLS: Final = 20_000
IMAGE: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
PATHS: Final = (
    ("GET", f"/v2/images/{IMAGE}"),
    ("PUT", f"/v2/images/{IMAGE}/file"),
    ("GET", "/v2/schemas/image"),
    ("POST", "/v2/images"),
)
FAST: Final = ("/v2/schemas/image", "/versions", f"/v2/images/{IMAGE}")


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    app = filters.filtering(_null, filters.migrated(directory))
    rounds = 5 if sizes.quick else 15
    costs = [_cost(app, method, path, rounds) for method, path in PATHS]
    slowest = max(costs, key=lambda pair: pair[0].median - pair[1].median)
    through, null = slowest
    added = through.median - null.median
    yield Result(
        "a request that passes through",
        "an empty app without the filter",
        f"the slowest of {len(PATHS)} paths, in-process",
        "µs",
        through,
        null,
        added,
        "µs added",
        Aim(2.0),
    )
    with servers.ServedGlance(directory / "fastest", with_filter=False) as served:
        fastest = _fastest(Client(served), rounds)
    yield Result(
        "what the filter adds to a request",
        "Glance's fastest request",
        "over HTTP on loopback",
        "µs",
        Spread(added, through.minimum - null.minimum, through.maximum - null.minimum, rounds),
        fastest,
        100 * added / fastest.median,
        "%",
        Aim(0.1),
    )


def _cost(app: Any, method: str, path: str, rounds: int) -> tuple[Spread, Spread]:
    """Return the processor time of a call in microseconds, with the filter and without."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "HTTP_X_ROLES": "member",
    }
    sides = {"with": _calls(app, environ), "without": _calls(_null, environ)}
    taken = in_turns(sides, rounds, clock=time.process_time)
    return tuple(scaled(taken[side], 1e6 / CALLS) for side in ("with", "without"))  # type: ignore[return-value]


def _calls(app: Callable[..., Any], environ: dict[str, Any]) -> Callable[[], float]:
    return lambda: timeit.timeit(lambda: app(environ, _start), number=CALLS)


def _null(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return []


def _start(*_: object) -> None:
    """Ignore the response."""


def _fastest(glance: Client, rounds: int) -> Spread:
    sides = {path: lambda path=path: glance.get(path) for path in FAST}
    taken = in_turns(sides, 10 * rounds, 20)
    return scaled(min(taken.values(), key=lambda spread: spread.median), 1e6)
