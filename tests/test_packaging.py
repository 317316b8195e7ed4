"""The two distributions: how they are built, what is in them, and that each starts alone."""

import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from email.message import Message
from email.parser import Parser
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from related_images import __version__
from tests.servers import PATIENCE, ServedGlance, free_port

ROOT = Path(__file__).parent.parent
PROJECTS = (ROOT, ROOT / "client")
SHARED = ("protocol", "client", "osc", "errors", "jsonform", "model", "validation")
"""What the client imports of the package, and the client itself."""
UNNEEDED = ("sqlalchemy", "alembic", "paste.deploy", "webob", "routes")
DATE = "1760000000"


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        command, cwd=cwd, env=environment | (env or {}), capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def options(project: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(project / "setup.cfg")
    return parser


def test_versions_agree() -> None:
    own = options(ROOT)
    assert own["metadata"]["version"] == __version__
    needed = re.findall(r"related-images-client\S*==(\S+)", (ROOT / "setup.cfg").read_text())
    assert set(needed) == {__version__}


def test_every_package_and_module_is_in_one_distribution() -> None:
    packages = [options(one)["options"]["packages"].split() for one in PROJECTS]
    assert set(packages[0]) & set(packages[1]) == {"related_images"}
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "related_images").rglob("*.py")
    }
    elsewhere = {f"related_images.{it}" for it in ("etc", "migrations", "migrations.versions")}
    assert set(packages[0]) | set(packages[1]) == found | elsewhere
    modules = [
        re.split(r",\s*", options(one)["build_py"]["modules_of_related_images"]) for one in PROJECTS
    ]
    top = [path.stem for path in (ROOT / "related_images").glob("*.py")]
    assert sorted(modules[0] + modules[1]) == sorted(top)


def copy(target: Path, mode: int) -> Path:
    """Copy the files of the repository, with other dates and permissions."""
    listing = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT)
    for name in listing.splitlines():
        source, copied = ROOT / name, target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copied.symlink_to(source.readlink())
        elif source.exists():
            copied.write_bytes(source.read_bytes())
            copied.chmod(mode)
    return target


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("clone"), 0o644)


def build(clone: Path) -> Path:
    for project in (clone, clone / "client"):
        command = (sys.executable, "-m", "build", "--outdir", clone / "dist", project)
        run(*command, cwd=clone, env={"SOURCE_DATE_EPOCH": DATE})
    return clone / "dist"


@pytest.fixture(scope="module")
def built(clone: Path) -> Path:
    """The directory with the wheel and the sdist of both distributions."""
    return build(clone)


@pytest.fixture(scope="module")
def wheels(built: Path) -> list[Path]:
    own, client = sorted(built.glob("*.whl"))
    assert client.name.startswith("related_images_client-")
    return [own, client]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel: Path) -> Message:
    (name,) = (name for name in names_in(wheel) if name.endswith("/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        parsed: Message = Parser().parsestr(archive.read(name).decode())
        return parsed


@pytest.mark.slow
def test_a_second_build_has_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build(copy(tmp_path / "other", 0o600))
    files = sorted(path.name for path in built.iterdir())
    assert len(files) == 4
    assert files == sorted(path.name for path in again.iterdir())
    for name in files:
        assert (built / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.slow
def test_no_file_is_in_both_wheels(wheels: list[Path]) -> None:
    own, client = map(names_in, wheels)
    assert not own & client
    for needed in (
        "config.py",
        "etc/paste.ini",
        "migrations/env.py",
        "integrations/horizon/enabled/_9010_related_images.py",
        "integrations/horizon/locale/de/LC_MESSAGES/django.po",
        "integrations/horizon/static/related_images/related-images.module.js",
        "integrations/horizon/templates/related_images/lineage.html",
    ):
        assert f"related_images/{needed}" in own
    assert any(name.startswith("related_images/migrations/versions/0001") for name in own)
    assert {"related_images/__init__.py", "related_images/py.typed"} <= client
    parts = {name.split("/")[1].removesuffix(".py") for name in client}
    assert set(SHARED) <= parts
    assert not {name.split("/")[1].removesuffix(".py") for name in own} & set(SHARED)


@pytest.mark.slow
def test_wheels_contain_only_the_package(wheels: list[Path]) -> None:
    for wheel in wheels:
        tops = {name.split("/")[0] for name in names_in(wheel)}
        assert {top.split("-")[0] for top in tops} == {"related_images", wheel.name.split("-")[0]}


@pytest.mark.slow
def test_sdists_contain_no_tests_and_no_benchmarks(built: Path) -> None:
    for sdist in built.glob("*.tar.gz"):
        with tarfile.open(sdist) as archive:
            members = archive.getmembers()
        assert {(one.mtime, one.uid, one.uname) for one in members} == {(int(DATE), 0, "")}
        parts = {part for one in members for part in Path(one.name).parts}
        assert {"setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "PKG-INFO"} <= parts
        assert not parts & {"tests", "benchmarks", ".ci", "__pycache__"}


@pytest.mark.slow
def test_metadata_has_links_and_classifiers(wheels: list[Path]) -> None:
    for wheel in wheels:
        metadata = metadata_of(wheel)
        links = [one.split(",")[0] for one in metadata.get_all("Project-URL", [])]
        assert links == ["Homepage", "Documentation", "Source", "Changes"]
        classifiers = metadata.get_all("Classifier", [])
        assert "Environment :: OpenStack" in classifiers
        assert "Programming Language :: Python :: 3.13" in classifiers
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Version"] == __version__
    needed = metadata_of(wheels[0]).get_all("Requires-Dist", [])
    assert f"related-images-client=={__version__}" in needed


@pytest.mark.slow
def test_twine_accepts_the_files(built: Path) -> None:
    shown = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert shown.count("PASSED") == 4


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


class Environment:
    """A virtual environment with nothing but what is installed into it."""

    def __init__(self, home: Path, *requirements: str | Path) -> None:
        self.home = home
        self.bin = home / "env/bin"
        run(sys.executable, "-m", "venv", "env", cwd=home)
        self.install(*requirements)

    def install(self, *requirements: str | Path) -> None:
        self.run("pip", "install", "--quiet", *requirements)
        self.run("pip", "check")

    def run(self, program: str, *words: str | Path, env: dict[str, str] | None = None) -> str:
        return run(self.bin / program, *words, cwd=self.home, env=env)

    @contextmanager
    def started(self, program: str, *words: str) -> Iterator[Path]:
        """Run a program until the end of the context; yields the file with its output."""
        log = self.home / "started.log"
        with log.open("wb") as file:
            command: tuple[str | Path, ...] = (self.bin / program, *words)
            process = subprocess.Popen(command, cwd=self.home, stdout=file, stderr=file)
        try:
            yield log
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(120)

    def fails(self, program: str, *words: str) -> str:
        command: tuple[str | Path, ...] = (self.bin / program, *words)
        done = subprocess.run(command, cwd=self.home, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0
        return done.stdout + done.stderr

    def names(self) -> set[str]:
        """Return the installed distributions, in lower case."""
        listed = self.run("pip", "list", "--format", "freeze")
        return {line.split("==")[0].lower() for line in listed.splitlines()}

    def importable(self, *modules: str) -> list[str]:
        code = (
            "import importlib.util as util, sys\n"
            "def found(name):\n"
            "    try: return util.find_spec(name) is not None\n"
            "    except ModuleNotFoundError: return False\n"
            "print(*filter(found, sys.argv[1:]))"
        )
        return self.run("python", "-c", code, *modules).split()


@pytest.fixture(scope="module")
def bare(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the filter, without extras."""
    return Environment(tmp_path_factory.mktemp("bare"), *wheels)


@pytest.mark.slow
def test_bare_install_migrates_and_loads(bare: Environment) -> None:
    url = "sqlite:///bare.db"
    bare.run("related-images", "db", "upgrade", "--connection", url)
    bare.run("related-images", "db", "check", "--connection", url)
    loading = (
        "from paste.deploy import loadfilter; import related_images.middleware as m; "
        "f = loadfilter('config:paste.ini', name='related-images', relative_to='.'); "
        "print(type(f(lambda e, s: [])).__name__, m.InstanceAwareMiddleware.__name__)"
    )
    (bare.home / "paste.ini").write_text(
        f"[filter:related-images]\nuse = egg:related-images#instance_aware\nconnection = {url}\n"
    )
    assert bare.run("python", "-c", loading).split() == ["InstanceAwareMiddleware"] * 2


@pytest.mark.slow
def test_bare_install_is_small(bare: Environment) -> None:
    assert not bare.names() & {"glance", "nova", "openstacksdk", "python-openstackclient"}


@pytest.mark.slow
def test_client_loads_no_library_of_the_filter(bare: Environment) -> None:
    loaded = bare.run("python", "-c", "import sys, related_images.client; print(*sys.modules)")
    assert not set(loaded.split()) & {*UNNEEDED, "cliff", "glanceclient"}


@pytest.fixture(scope="module")
def user(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the client alone and its commands."""
    return Environment(tmp_path_factory.mktemp("user"), f"{wheels[1]}[cli]")


@pytest.fixture(scope="module")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    with ServedGlance(tmp_path_factory.mktemp("glance")) as served:
        yield served


@pytest.mark.slow
def test_client_alone_brings_none_of_the_libraries_of_the_filter(user: Environment) -> None:
    assert user.importable(*UNNEEDED, "related_images.db", "related_images.config") == []
    assert user.importable("related_images.client", "keystoneauth1") != []


@pytest.mark.slow
def test_commands_of_the_client_alone_start(user: Environment) -> None:
    section = options(ROOT / "client")["options.entry_points"]["openstack.related_images.v1"]
    commands = [line.split(" = ")[0].split("_") for line in section.split("\n") if line]
    assert ["server", "backup", "list"] in commands
    for command in commands:
        shown = user.run("openstack", *command, "--help")
        assert f"usage: openstack {' '.join(command)}" in shown


USE = """
from pathlib import Path
import openstack
from related_images.client import InstanceAwareImageService

installation = Path("installation-uuid").read_text().strip()
images = InstanceAwareImageService(openstack.connect(cloud="nova"), installation)
image = images.create(
    "alone", kind="backup", name="alone", disk_format="raw", container_format="bare"
)
images.upload(image.id, b"data")
print([found.name for found in images.backups("alone")])
"""


@pytest.mark.slow
def test_client_alone_works_with_glance(user: Environment, glance: ServedGlance) -> None:
    for name in ("clouds.yaml", "installation-uuid"):
        (user.home / name).write_bytes((glance.directory / name).read_bytes())
    assert user.run("python", "-c", USE) == "['alone']\n"
    listing = ("server", "image", "list", "alone", "-f", "value", "-c", "Name")
    assert user.run("openstack", "--os-cloud", "nova", *listing) == "alone\n"


@pytest.mark.slow
def test_client_without_extras_needs_only_keystoneauth1(wheels: list[Path], tmp_path: Path) -> None:
    alone = Environment(tmp_path, wheels[1])
    alone.run("python", "-c", "import related_images.client.backups")
    assert not alone.names() & {"cliff", "openstacksdk", "python-openstackclient", "oslo.config"}


@pytest.mark.slow
def test_editable_install_of_a_clone_needs_no_index_with_the_client(
    clone: Path, tmp_path: Path
) -> None:
    developer = Environment(tmp_path, "--editable", f"{clone}[cli]")
    names = developer.names()
    assert "related-images" in names
    assert "related-images-client" not in names
    where = "import related_images.client as c, related_images.db as d; print(c.__file__)"
    assert developer.run("python", "-c", where).startswith(str(clone / "related_images"))
    developer.run("related-images", "db", "upgrade", "--connection", "sqlite:///editable.db")
    developer.run("openstack", "server", "backup", "list", "--help")


@pytest.mark.slow
def test_install_from_a_clone_finds_the_client_there(clone: Path, tmp_path: Path) -> None:
    """The installation has no module that an earlier one from this clone has left in ``build/``."""
    for project in (clone, clone / "client"):
        left = project / "build" / "lib" / "related_images" / f"left_in_{project.name}.py"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
    operator = Environment(tmp_path, clone / "client", clone)
    of_earlier = [f"related_images.left_in_{name}" for name in (clone.name, "client")]
    assert operator.importable("related_images.model", *of_earlier) == ["related_images.model"]
    assert {"related-images", "related-images-client"} <= operator.names()
    frozen = operator.run("pip", "freeze")
    assert f"related-images-client @ file://{clone}/client" in frozen
    operator.run("related-images", "db", "upgrade", "--connection", "sqlite:///installed.db")


def with_extra(extra: str, wheels: list[Path], home: Path) -> Environment:
    return Environment(home, f"{wheels[0]}[{extra}]", wheels[1])


@pytest.mark.slow
def test_extra_cli_starts_alone(wheels: list[Path], tmp_path: Path) -> None:
    installed = with_extra("cli", wheels, tmp_path)
    assert "usage:" in installed.run("openstack", "server", "backup", "list", "--help")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "driver"), [("mysql", "mysql+pymysql"), ("postgresql", "postgresql+psycopg")]
)
def test_extra_of_a_database_starts_alone(
    wheels: list[Path], tmp_path: Path, extra: str, driver: str
) -> None:
    installed = with_extra(extra, wheels, tmp_path)
    url = f"{driver}://nobody:none@127.0.0.1:1/none"
    said = installed.fails("related-images", "db", "version", "--connection", url)
    assert re.search("refused|connect", said), said  # by the driver, since there is no server


@pytest.mark.slow
def test_extra_listen_starts_alone(wheels: list[Path], tmp_path: Path) -> None:
    installed = with_extra("listen", wheels, tmp_path)
    database = ("--connection", "sqlite:///listen.db")
    installed.run("related-images", "db", "upgrade", *database)
    url = f"rabbit://127.0.0.1:{free_port()}/"
    bus = ("--installation", "0f8fad5b-d9cb-469f-a165-70867728950e", "--transport-url", url)
    with installed.started("related-images", "listen", *bus, *database) as log:
        wait_until(lambda: "refused" in log.read_text())  # by oslo.messaging: there is no bus
    assert "stopped" in log.read_text()


@pytest.mark.slow
def test_extra_reconcile_starts_alone(
    wheels: list[Path], tmp_path: Path, glance: ServedGlance
) -> None:
    installed = with_extra("reconcile", wheels, tmp_path)
    (tmp_path / "clouds.yaml").write_bytes((glance.directory / "clouds.yaml").read_bytes())
    installed.run("related-images", "db", "upgrade", "--connection", "sqlite:///reconcile.db")
    words = ("reconcile", "--os-cloud", "admin", "--connection", "sqlite:///reconcile.db")
    assert "0" in installed.run("related-images", *words, "--allow-empty-glance")


@pytest.mark.slow
def test_extra_glance_serves_alone(wheels: list[Path], tmp_path: Path) -> None:
    installed = with_extra("glance", wheels, tmp_path)
    port = free_port()

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/versions", timeout=10) as response:
                return b"v2" in response.read()
        except HTTPError as error:  # 300 Multiple Choices
            return error.code == HTTPStatus.MULTIPLE_CHOICES
        except OSError:  # it does not listen yet, or answers slowly
            return False

    with installed.started("related-images", "serve", "--port", str(port)):
        wait_until(answers)
