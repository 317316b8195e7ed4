"""Reports of a run: table, files, plot, and a description of the machine."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Result, Spread

PACKAGES: Final = ("related-images", "glance", "SQLAlchemy", "gunicorn", "PyMySQL", "psycopg")


CALLERS: Final = {"admin": "an administrator", "member": "a project member"}
"""The callers that list images by property, as the plot names them."""


def machine() -> dict[str, str]:
    """Return a description of the machine and the software."""
    import sqlite3

    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "load at the end": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: _server(name) for name in ("mariadbd", "postgres") if shutil.which(name)},
        **{name: version(name) for name in PACKAGES},
    }


def _server(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


HEAD: Final = (
    "measurement",
    "size",
    "result",
    "compared with",
    "its result",
    "ratio",
    "aim",
    "verdict",
)


def table(results: Iterable[Result]) -> str:
    """Return the results as a Markdown table: median (minimum-maximum)."""
    head = [_row(HEAD), _row(["---"] * len(HEAD))]
    return "\n".join([*head, *map(line, results)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def line(result: Result) -> str:
    """Return one line of the table."""
    cells = (
        result.what,
        result.size,
        _shown(result.ours, result.unit),
        result.against,
        _shown(result.theirs, result.unit),
        f"{result.value:.3g} {result.value_unit}",
        "" if result.aim is None else str(result.aim),
        "; ".join(filter(None, (result.verdict, result.note))),
    )
    return _row(cells)


def _shown(spread: Spread, unit: str) -> str:
    if spread.rounds == 1:
        return f"{spread.median:.4g} {unit}"
    return f"{spread.median:.3g} ({spread.minimum:.3g}-{spread.maximum:.3g}) {unit}"


def write(directory: Path, results: Sequence[Result], ran_on: dict[str, str]) -> None:
    """Write ``results.json``, ``results.md`` and, with matplotlib, ``results.svg``."""
    directory.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"ran_on": ran_on, "results": [one.as_json() for one in results]}
    (directory / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (directory / "results.md").write_text(f"{table(results)}\n\n{_sentence(ran_on)}\n")
    draw(directory / "results.svg", results)


def _sentence(ran_on: dict[str, str]) -> str:
    return "Ran on: " + ", ".join(f"{name} {value}" for name, value in ran_on.items()) + "."


def draw(path: Path, results: Sequence[Result]) -> None:
    """Plot latency by size for both sides, on logarithmic axes; needs the extra ``[bench]``."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: install the extra [bench] for it")
        return
    lines = curves(results)
    if not lines:
        return
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="images or relations", ylabel="median, ms")
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.legend(fontsize="x-small", loc="outside lower center", ncols=2)
    figure.savefig(path, metadata={"Date": None})


def curves(results: Sequence[Result]) -> dict[str, list[tuple[int, float]]]:
    """Return the lines of the plot by name: pairs of size and milliseconds."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for result in results:
        if result.curve is None or result.unit != "ms":
            continue
        name, size = result.curve
        who, _, kind = name.partition(", ")
        if who in CALLERS:
            theirs = f"?instance_uuid= by {CALLERS[who]} ({kind})"
            lines.setdefault(theirs, []).append((size, result.theirs.median))
            name = f"image list by instance headers ({kind})"
        if (size, result.ours.median) not in lines.setdefault(name, []):
            lines[name].append((size, result.ours.median))
    return lines
