"""Run tests in one environment for each release, and write docs/compatibility.md.

`python -m tests.matrix` runs all releases; `--release 2025.1` runs one and only prints its rows.
"""

import argparse
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
PATIENCE = 900
"""Seconds after which a suite is ended."""

SERVICES = {
    "2025.1": "glance==30.2.0 nova==31.3.1 cinder==26.3.0 keystone==27.1.0 "
    "openstack-placement==13.0.1",
    "2025.2": "glance==31.1.0 nova==32.2.1 cinder==27.0.0 keystone==28.1.0 "
    "openstack-placement==14.0.0",
    "2026.1": "glance==32.0.0 nova==33.0.2 cinder==28.0.0 keystone==29.1.0 "
    "openstack-placement==15.0.0",
}
EXTRAS = "cli,glance,listen,mysql,postgresql,reconcile"
TOOLS = (
    *("pytest", "pytest-xdist", "hypothesis", "jsonschema", "ddt", "fixtures", "oslotest"),
    *("requests-mock", "testresources", "testscenarios", "testtools", "wsgi-intercept"),
    *("keystonemiddleware", "python-cinderclient", "psutil", "glance_store[cinder,s3]"),
)
SHOWN = (
    *("glance", "nova", "cinder", "keystone", "SQLAlchemy", "alembic", "oslo.config"),
    *("oslo.policy", "keystonemiddleware", "WebOb", "python-glanceclient", "openstacksdk"),
    "python-openstackclient",
)
SUITES = {
    "the filter with Glance": (
        *("tests/functional/test_create.py", "tests/functional/test_life.py"),
        *("tests/functional/test_list_by_relation.py", "tests/functional/test_routes.py"),
        *("tests/functional/test_spellings.py", "tests/functional/test_guard.py"),
        "tests/functional/test_policy.py",
    ),
    "options and policy": ("tests/test_config.py", "tests/middleware/test_policy.py"),
    "the clients": ("tests/client/test_contract.py",),
    "the filter in nova-api": ("tests/integrations/test_nova.py",),
    "the filter in cinder-api": ("tests/integrations/test_cinder.py",),
}


REASONS = {
    "2025.1": "Glance 30.2.0 keeps its own SQLite database locked after it refuses some requests, "
    "and answers later ones with 500. Without the filter too, the deletion of a protected image by "
    "its owner and then by another user gives 500. The log of each failed test that was examined "
    "has this error. Glance 30.2.0 with MariaDB or PostgreSQL was not run."
}
"""Why tests fail with a release."""


@dataclass(frozen=True)
class Result:
    """The result of one suite with one release."""

    passed: int
    skipped: int
    failed: list[str]
    seconds: float


def install(release: str) -> Path:
    """Return the directory of the programs of the environment of a release."""
    programs = ROOT / f".venv-{release}" / "bin"
    if not (programs.parent / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
        constraints = Path(__file__).parent / f"{release}.txt"
        pip = (programs / "python", "-m", "pip", "install", "--quiet", "-c", constraints)
        wanted = ("-e", f"{ROOT}[{EXTRAS}]", *SERVICES[release].split(), *TOOLS)
        subprocess.run([*pip, *wanted], check=True)
        subprocess.run([programs / "python", "-m", "pip", "check"], check=True)
        (programs.parent / ".installed").touch()
    return programs


def run(release: str, programs: Path, files: tuple[str, ...]) -> Result:
    """Run the tests in files, with slow tests."""
    report = programs.parent / "report.xml"
    report.unlink(missing_ok=True)
    begun = time.monotonic()
    command: tuple[str | Path, ...] = (
        programs / "pytest",
        "-q",
        "-m",
        "",
        "-n0",
        f"--junitxml={report}",
        *files,
    )
    with (programs.parent / "tests.log").open("ab") as log:
        try:
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return Result(0, 0, [f"not finished after {PATIENCE} s"], PATIENCE)
    seconds = time.monotonic() - begun
    if not report.exists():
        return Result(0, 0, ["pytest ended without a report"], seconds)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [_named(case) for case in cases if _has(case, "failure") or _has(case, "error")]
    skipped = sum(_has(case, "skipped") for case in cases)
    return Result(len(cases) - len(failed) - skipped, skipped, failed, seconds)


def _has(case: ElementTree.Element, child: str) -> bool:
    return case.find(child) is not None


def _named(case: ElementTree.Element) -> str:
    module = case.get("classname", "").removeprefix("tests.").replace(".", "/")
    return f"`tests/{module}.py::{case.get('name')}`"


def versions(programs: Path) -> dict[str, str]:
    """Return the installed versions of the packages that the page shows."""
    listed = subprocess.run(
        [programs / "python", "-m", "pip", "list", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (line.split("==") for line in listed.stdout.splitlines() if "==" in line)
    found = {name.lower().replace("_", "-"): version for name, version in pairs}
    return {name: found.get(name.lower(), "none") for name in SHOWN}


def section(release: str) -> tuple[str, bool]:
    """Run all suites with a release; return its part of the page, and whether all is explained."""
    programs = install(release)
    python = subprocess.run(
        [programs / "python", "--version"], capture_output=True, text=True, check=True
    )
    results = {name: run(release, programs, files) for name, files in SUITES.items()}
    lines = _lines(release, python.stdout.strip(), versions(programs), results)
    failed = any(it.failed for it in results.values())
    return "\n".join(lines), release in REASONS or not failed


def _lines(
    release: str, python: str, installed: dict[str, str], results: dict[str, Result]
) -> Iterator[str]:
    yield f"## OpenStack {release}"
    yield ""
    resolved = ", ".join(f"{name} {version}" for name, version in installed.items())
    yield textwrap.fill(f"Run on {datetime.now(UTC):%Y-%m-%d} with {python}, {resolved}.", 118)
    yield ""
    yield "| tests | passed | failed | skipped | seconds |"
    yield "|---|---|---|---|---|"
    for name, it in results.items():
        yield f"| {name} | {it.passed} | {len(it.failed)} | {it.skipped} | {it.seconds:.0f} |"
    yield ""
    for name, it in results.items():
        for failure in it.failed:
            yield f"- {name}: {failure} fails"
    if release in REASONS and any(it.failed for it in results.values()):
        yield ""
        yield textwrap.fill(REASONS[release], 118)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", choices=SERVICES)
    parser.add_argument("--jobs", type=int, default=1, help="releases at the same time")
    given = parser.parse_args()
    releases = [given.release] if given.release else list(SERVICES)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(section, releases))
    sections = [text.rstrip() for text, _ in results]
    print("\n\n".join(sections))
    if not given.release:
        head, _, _ = PAGE.read_text().partition("## OpenStack ")
        PAGE.write_text(head + "\n\n".join(sections) + "\n")
    return 0 if all(explained for _, explained in results) else 1


if __name__ == "__main__":
    sys.exit(main())
