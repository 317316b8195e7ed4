"""Compare the outcome of every functional test of Glance with and without the filter.

    python -m tests.glance_suite [--part [PART]] [--tuple] [--processes N]

A test with different outcomes is run again alone on both sides: some of Glance's tests wait for a
fixed time and fail on a busy machine. The exit code is 0 if the tests with different outcomes are
exactly those in ``differences.txt`` (for ``--tuple``; none otherwise), else 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from related_images.db import schema

ROOT = Path(__file__).parent.parent.parent
LISTED = Path(__file__).parent / "differences.txt"
SUITE = "glance.tests.functional"
PART = "test_images_api_policy or test_image_members or test_schemas or test_discovery"
"""The tests of ``--part``: those of images and policies."""

Outcomes = dict[str, str]


def run(mode: str, home: Path, *chosen: str, name: str = "") -> Outcomes:
    """Return the outcome of each test by name; ``chosen`` are arguments for pytest."""
    log, report = (home / f"{name or mode}{ending}" for ending in (".log", ".xml"))
    command = [sys.executable, "-m", "pytest", "--pyargs", *chosen, "-q", "-p", "no:cacheprovider"]
    command += ["-p", "tests.glance_suite.plugin", f"--junitxml={report}"]
    command += ["-c", os.devnull, "--rootdir", str(home)]
    environment = {
        **os.environ,
        "GLANCE_SUITE": mode,
        "GLANCE_SUITE_DATABASE": str(home / "template.db"),
        "PYTHONPATH": str(ROOT),
    }
    # the suite finds its data relative to the directory of the glance package
    packages = Path(str(files("glance"))).parent
    with log.open("w") as out:
        subprocess.run(command, cwd=packages, env=environment, stdout=out, stderr=out, check=False)
    if not report.exists():
        raise SystemExit(f"the suite did not run:\n{log.read_text()[-3000:]}")
    return outcomes(report)


def outcomes(report: Path) -> Outcomes:
    """Read a JUnit report: ``passed``, ``failed``, ``error`` or ``skipped`` for each test."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {"failure": "failed", "error": "error", "skipped": "skipped"}
        marks = [kinds[child.tag] for child in case if child.tag in kinds]
        found[f"{case.get('classname')}.{case.get('name')}"] = marks[0] if marks else "passed"
    return found


def differing(without: Outcomes, with_it: Outcomes) -> dict[str, str]:
    """Return both outcomes of each test whose outcomes differ."""
    names = sorted(without.keys() | with_it.keys())
    pairs = {name: (without.get(name, "absent"), with_it.get(name, "absent")) for name in names}
    return {name: f"{a} -> {b}" for name, (a, b) in pairs.items() if a != b}


def listed() -> dict[str, str]:
    """Return the tests that may differ with instance headers on every request, with reasons."""
    lines = [line.strip() for line in LISTED.read_text().splitlines()]
    rows = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in rows}


def selection(names: Iterable[str]) -> list[str]:
    """Return the arguments with which pytest runs only these tests."""
    pairs = (name.rsplit(".", 2)[1:] for name in names)
    return [SUITE, "-k", " or ".join(f"({group} and {test})" for group, test in pairs)]


def compare(mode: str, without: Outcomes, home: Path, chosen: list[str]) -> int:
    """Run the suite with the filter, then the tests with different outcomes again on both sides."""
    with_it = run(mode, home, *chosen)
    differing_once = differing(without, with_it)
    if differing_once:
        again = selection(differing_once)
        without = without | run("off", home, *again, name=f"off-beside-{mode}")
        with_it = with_it | run(mode, home, *again, name=f"{mode}-again")
    return report(without, with_it, mode, listed() if mode == "tuple" else {})


def main() -> int:
    """Run the suite without the filter and with it, and compare."""
    options = _options()
    home = options.output.resolve()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    # one file, since the copy does not include the write-ahead log
    schema.upgrade(f"sqlite:///{home}/template.db")
    chosen = [SUITE, "-n", str(options.processes), *(["-k", options.part] if options.part else [])]
    without = run("off", home, *chosen)
    modes = ["on", "tuple"] if options.tuple else ["on"]
    return max([compare(mode, without, home, chosen) for mode in modes])


def report(without: Outcomes, with_it: Outcomes, mode: str, allowed: dict[str, str]) -> int:
    """Print the differences; return the exit code."""
    found = differing(without, with_it)
    print(f"glance {version('glance')}, {SUITE}, filter {mode}")
    print(f"without: {dict(Counter(without.values()))}")
    print(f"with:    {dict(Counter(with_it.values()))}")
    surprising = {name: change for name, change in found.items() if name not in allowed}
    gone = [name for name in allowed if name in without and name not in found]
    for name, change in found.items():
        print(f"{'listed' if name in allowed else 'DIFFERS'}: {name}: {change}")
    for name in gone:
        print(f"listed, but the same: {name}")
    print(f"{len(without)} compared, {len(found)} differ, {len(surprising)} of them not listed")
    return 1 if surprising or gone or not without else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.glance_suite")
    parser.add_argument(
        "--part", nargs="?", const=PART, help="a pytest expression; bare: CI's part"
    )
    parser.add_argument(
        "--tuple", action="store_true", help="run again with instance headers on every request"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("build/glance-suite"), metavar="DIR")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
