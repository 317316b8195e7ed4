"""Run tests with releases of OpenStack and versions of Python, and write docs/compatibility.md.

Each pair of a release and a Python has a virtual environment and a section of the page. A run
replaces the sections of its pairs; with ``--part`` it runs fewer tests and writes nothing.
"""

import argparse
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
PATIENCE = 1800
"""Seconds after which a suite is ended."""
WIDTH = 118

SERVICES = {
    "2025.1": "glance==30.2.0 nova==31.3.1 cinder==26.3.0 keystone==27.1.0 "
    "openstack-placement==13.0.1",
    "2025.2": "glance==31.1.0 nova==32.2.1 cinder==27.0.0 keystone==28.1.0 "
    "openstack-placement==14.0.0",
    "2026.1": "glance==32.0.0 nova==33.0.2 cinder==28.0.0 keystone==29.1.0 "
    "openstack-placement==15.0.0",
    "2026.2": "glance==33.* nova==34.* cinder==29.* keystone==30.* openstack-placement==16.*",
}
"""The services of each release. Its other packages are pinned by a file in this directory; those of
the newest release are what pip resolves."""
NEWEST = "2026.2"
PYTHONS = ("3.11", "3.12", "3.13")
"""The versions for the newest release; the first one is also that of all older releases."""
EXTRAS = "cli,glance,listen,mysql,postgresql,reconcile"
TOOLS = (
    *("pytest", "pytest-xdist", "hypothesis", "jsonschema", "ddt", "fixtures", "oslotest"),
    *("requests-mock", "testresources", "testscenarios", "testtools", "wsgi-intercept"),
    *("keystonemiddleware", "python-cinderclient", "psutil", "glance_store[cinder,s3]"),
)
SHOWN = (
    *("glance", "nova", "cinder", "keystone", "SQLAlchemy", "alembic", "PyMySQL", "psycopg"),
    *("oslo.config", "oslo.policy", "keystonemiddleware", "WebOb", "python-glanceclient"),
    *("openstacksdk", "python-openstackclient"),
)
SERVERS = {
    "MariaDB": ("/usr/sbin/mariadbd", "--version"),
    "PostgreSQL": ("/usr/lib/postgresql/*/bin/postgres", "--version"),
    "Galera": ("/usr/bin/dpkg-query", "--show", "galera-4"),
}
"""The commands that print the versions of the database servers."""
FILTER, DATABASES, GALERA = "the filter with Glance", "the databases", "Galera"
NOVA_API, CINDER_API = "the filter in nova-api", "the filter in cinder-api"
SUITES = {
    FILTER: (
        *("tests/functional/test_create.py", "tests/functional/test_life.py"),
        *("tests/functional/test_list_by_relation.py", "tests/functional/test_routes.py"),
        *("tests/functional/test_spellings.py", "tests/functional/test_guard.py"),
        "tests/functional/test_policy.py",
    ),
    "options and policy": ("tests/test_config.py", "tests/middleware/test_policy.py"),
    "the clients": ("tests/client/test_contract.py",),
    NOVA_API: ("tests/integrations/test_nova.py",),
    CINDER_API: ("tests/integrations/test_cinder.py",),
    DATABASES: (
        *("tests/db/test_schema.py", "tests/db/test_recording.py", "tests/db/test_races.py"),
        *("tests/db/test_lineage.py", "tests/db/test_usage.py", "tests/db/test_guarding.py"),
        *("tests/db/test_leases.py", "tests/db/test_urls.py", "tests/middleware/test_databases.py"),
        "tests/db/test_dependent_pages.py",
    ),
    GALERA: ("tests/guarantees/test_galera.py",),
}
PART = {
    FILTER: ("tests/functional/test_create.py", "tests/functional/test_guard.py"),
    NOVA_API: SUITES[NOVA_API],
    CINDER_API: SUITES[CINDER_API],
    DATABASES: ("tests/db/test_schema.py", "tests/middleware/test_databases.py"),
}
"""The suites of ``--part``."""

REASONS = {
    "2025.1": "Glance 30.2.0 keeps its own SQLite database locked after it refuses some requests, "
    "and answers later ones with 500. This happens without the filter too: if the owner of a "
    "protected image tries to delete it, and then another user does, the answer is 500. The log of "
    "each failed test that was examined has this error. Glance 30.2.0 with MariaDB or PostgreSQL "
    "was not run."
}
"""Why tests fail with a release."""
PYTHON_HELP = "an interpreter that is not on PATH under its name, such as python3.12"


@dataclass(frozen=True)
class Environment:
    """A release of OpenStack and a version of Python, such as ``3.12``."""

    release: str
    version: str

    @property
    def title(self) -> str:
        return f"## OpenStack {self.release}, Python {self.version}"

    @property
    def programs(self) -> Path:
        return ROOT / f".venv-{self.release}-{self.version}" / "bin"

    def python(self, *words: str) -> str:
        """Return what Python prints in this environment, or the last line of its error."""
        return _output(self.programs / "python", *words)


ENVIRONMENTS = (
    *(Environment(release, PYTHONS[0]) for release in SERVICES if release != NEWEST),
    *(Environment(NEWEST, version) for version in PYTHONS),
)


@dataclass(frozen=True)
class Result:
    """The result of one suite in one environment."""

    passed: int
    skipped: int
    failed: list[str]
    seconds: float


def install(environment: Environment, python: str) -> None:
    """Create the virtual environment, unless an earlier run has finished that."""
    done = environment.programs.parent / ".installed"
    if done.exists():
        return
    subprocess.run([python, "-m", "venv", "--clear", environment.programs.parent], check=True)
    pip = (environment.programs / "python", "-m", "pip")
    pins = Path(__file__).with_name(f"{environment.release}.txt")
    constraints = ("-c", pins) if pins.exists() else ()
    wanted = ("-e", f"{ROOT}[{EXTRAS}]", *SERVICES[environment.release].split(), *TOOLS)
    subprocess.run([*pip, "install", "--quiet", *constraints, *wanted], check=True)
    subprocess.run([*pip, "check"], check=True)
    done.touch()


def run(environment: Environment, files: tuple[str, ...]) -> Result:
    """Run the tests in files, with slow tests."""
    programs = environment.programs
    report = programs.parent / "report.xml"
    report.unlink(missing_ok=True)
    begun = time.monotonic()
    options = ("-q", "-m", "", "-n0", f"--junitxml={report}")
    command: tuple[str | Path, ...] = (programs / "pytest", *options, *files)
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


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout if done.returncode == 0 else (done.stderr.splitlines() or ["failed"])[-1]
    return said.strip()


def versions(environment: Environment) -> Iterator[str]:
    """Yield the versions of Python, of the packages in the page and of the database servers."""
    yield environment.python("--version")
    listed = environment.python("-m", "pip", "list", "--format", "freeze").splitlines()
    pairs = (line.split("==") for line in listed if "==" in line)
    found = {name.lower().replace("_", "-"): version for name, version in pairs}
    for name in SHOWN:
        yield f"{name} {found.get(name.lower(), 'none')}"
    for name, (pattern, *words) in SERVERS.items():
        programs = sorted(glob(pattern))
        numbers = re.findall(r"\d+(?:\.\d+)+", _output(programs[-1], *words) if programs else "")
        yield f"{name} {numbers[0] if numbers else 'none'}"


def section(environment: Environment, suites: dict[str, tuple[str, ...]]) -> tuple[str, bool]:
    """Run suites; return the section of the page, and whether every failure has a reason."""
    results = {name: run(environment, files) for name, files in suites.items()}
    lines = _lines(environment, results)
    failed = any(it.failed for it in results.values())
    return "\n".join(lines).rstrip(), environment.release in REASONS or not failed


def _lines(environment: Environment, results: dict[str, Result]) -> Iterator[str]:
    yield environment.title
    yield ""
    resolved = ", ".join(versions(environment))
    yield textwrap.fill(f"Run on {datetime.now(UTC):%Y-%m-%d} with {resolved}.", WIDTH)
    yield ""
    wrapped = [environment.python("-m", "tests.matrix.functions", it) for it in ("nova", "cinder")]
    yield textwrap.fill(
        f"The filters found the functions that they use: {'; '.join(wrapped)}.", WIDTH
    )
    yield ""
    yield "| tests | passed | failed | skipped | seconds |"
    yield "|---|---|---|---|---|"
    for name, it in results.items():
        yield f"| {name} | {it.passed} | {len(it.failed)} | {it.skipped} | {it.seconds:.0f} |"
    yield ""
    for name, it in results.items():
        for failure in it.failed:
            yield f"- {name}: {failure} fails"
    if environment.release in REASONS and any(it.failed for it in results.values()):
        yield ""
        yield textwrap.fill(REASONS[environment.release], WIDTH)


def find_pythons(given: Sequence[str]) -> dict[str, str]:
    """Return the paths of the interpreters, by their versions; the given ones have precedence."""
    on_path = (shutil.which(f"python{version}") for version in PYTHONS)
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    paths = (*filter(None, on_path), sys.executable, *given)
    found = {_output(path, "-c", code): path for path in paths}
    return {version: found[version] for version in PYTHONS if version in found}


def write(sections: dict[str, str]) -> None:
    """Replace sections of the page; a pair that was never run is listed as not run."""
    head, *old = re.split(r"^(?=## )", PAGE.read_text(), flags=re.MULTILINE)
    texts = {text.partition("\n")[0]: text.rstrip() for text in old} | sections
    for environment in ENVIRONMENTS:
        missing = f"Not run: there was no Python {environment.version}."
        texts.setdefault(environment.title, f"{environment.title}\n\n{missing}")
    ordered = [texts[environment.title] for environment in ENVIRONMENTS]
    PAGE.write_text(head + "\n\n".join(ordered) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", choices=SERVICES, action="append", help="default: all")
    parser.add_argument("--python", metavar="PATH", action="append", default=[], help=PYTHON_HELP)
    parser.add_argument("--part", action="store_true", help="fewer tests; the page stays as it is")
    parser.add_argument("--jobs", type=int, default=1, help="environments at the same time")
    given = parser.parse_args()
    pythons = find_pythons(given.python)
    wanted = [it for it in ENVIRONMENTS if it.release in (given.release or SERVICES)]
    for environment in wanted:
        if environment.version not in pythons:
            print(f"not run: {environment.title[3:]}: python{environment.version} does not run")
    found = [it for it in wanted if it.version in pythons]
    for environment in found:
        install(environment, pythons[environment.version])
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(lambda it: section(it, PART if given.part else SUITES), found))
    print("\n\n".join(text for text, _ in results))
    if not given.part:
        write({it.title: text for it, (text, _) in zip(found, results, strict=True)})
    return 0 if found and all(explained for _, explained in results) else 1


if __name__ == "__main__":
    sys.exit(main())
