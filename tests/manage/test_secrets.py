"""Error messages about a wrong configuration never show a part of a password."""

import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from related_images.db import schema
from related_images.errors import ConfigurationError
from related_images.integrations import glance
from related_images.manage.notification_listener import Bus
from related_images.middleware import filter_factory
from tests import commands
from tests.db.samples import NOVA
from tests.servers import RELATED_IMAGES

pytestmark = pytest.mark.slow

SECRET = "hush"
USE = "use = egg:related-images#instance_aware"

WRONG = {
    "mysql+pymysql://u:pw@hush@127.0.0.1:1/db": "it has an @",
    "mysql+pymysql://u:pw@hush:1@127.0.0.1:1/db": "it has an @",
    "mysql+pymysql://u:pw@hush/1@127.0.0.1:1/db": "it has an @",
    "mysql+pymysql://u:pw@hush?1@127.0.0.1:1/db": "it has an @",
    "postgresql+psycopg://u/x:hush@127.0.0.1:1/db": "it has an @",
    "mysql+pymysql://u:hush": "its port is not a number",
    "mysql+pymysql://u:hush@127.0.0.1:33o6/db": "its port is not a number",
    "mysql+pymysql://u:pw@127.0.0.1:hush/db": "its port is not a number",
    "mysql+pymysql://u:pw@127.0.0.1:1/db?connect_timeout=hush": "connect_timeout must be",
    "mysql+pymsql://u:hush@127.0.0.1/db": "mysql with the driver pymsql",
    "mysqll://u:hush@127.0.0.1/db": "sqlalchemy.dialects:mysqll",
    "my sql://u:hush@127.0.0.1/db": "it is not of the form",
    "u:hush@127.0.0.1/db": "an SQLAlchemy URL is needed",
    "mysql+pymysql:/u:hush@127.0.0.1/db": "an SQLAlchemy URL is needed",
    "sqlite://u:hush@/x.db": "it is not of the form",
    "mysql+pymysql://u:hush\u20ac@127.0.0.1:1/db": "cannot send a character",
    "mysql+pymysql://u:pw@127.0.0.1:1/db?nonsense=hush": "'nonsense'",
    "postgresql+psycopg://u:pw@127.0.0.1:1/db?nonsense=hush": '"nonsense"',
    "mysql+pymysql://u:hush@127.0.0.1:1/db": "cannot be used",
    "mysql+pymysql://127.0.0.1:1/db?user=u&password=hush": "cannot be used",
    "postgresql+psycopg://127.0.0.1:1/db?user=u&password=hush": "cannot be used",
}
"""Wrong URLs with a password, and a part of the error message of each."""

COMMANDS = [
    ("db", "version"),
    ("db", "upgrade"),
    ("db", "check"),
    ("db", "purge", "--older-than", "90d"),
    ("installation", "list"),
    ("listen", "--installation", NOVA, "--transport-url", "fake:///"),
]

Failing = Callable[..., str]


@pytest.fixture
def failing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Failing:
    """Return a function that runs a command, which must fail, and returns its output."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert commands.run(*words) == 1
        said = capsys.readouterr()
        return said.out + said.err

    return run


def paste_file(directory: Path, *lines: str) -> tuple[str, str]:
    """Write a paste file, and return the arguments that select it."""
    path = directory / "paste.ini"
    path.write_text("\n".join([*lines, ""]), "utf-8")
    return "--paste", str(path)


def assert_hidden(said: str) -> None:
    assert SECRET not in said
    assert "20ac" not in said


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["", "with tracebacks"])
@pytest.mark.parametrize("url", WRONG)
def test_a_url_on_the_command_line(failing: Failing, url: str, options: tuple[str, ...]) -> None:
    said = failing(*options, "db", "version", "--connection", url)
    assert WRONG[url] in said
    assert_hidden(said)


@pytest.mark.parametrize("url", WRONG)
def test_a_url_in_a_paste_file(failing: Failing, tmp_path: Path, url: str) -> None:
    where = paste_file(tmp_path, "[filter:related-images]", USE, f"connection = {url}")
    said = failing("db", "version", *where)
    assert WRONG[url] in said
    assert_hidden(said)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://u:pw@hush@127.0.0.1:1/db",
        "mysql+pymysql://u:hush\u20ac@127.0.0.1:1/db",
        "mysql+pymysql://127.0.0.1:1/db?user=u&password=hush",
    ],
)
def test_no_command_shows_a_password(failing: Failing, command: tuple[str, ...], url: str) -> None:
    assert_hidden(failing("--debug", *command, "--connection", url))


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["", "with tracebacks"])
@pytest.mark.parametrize("password", ["hu%sh", "hush%", "%hush", "%(hush", "%(hush)s", "50%hush"])
def test_a_percent_sign_in_a_paste_file(
    failing: Failing, tmp_path: Path, password: str, options: tuple[str, ...]
) -> None:
    url = f"connection = mysql+pymysql://u:{password}@127.0.0.1:1/db"
    where = paste_file(tmp_path, "[filter:related-images]", USE, url)
    said = failing(*options, "db", "version", *where)
    for named in (
        where[1],
        "[filter:related-images]",
        "the option connection",
        "write %% for each %",
    ):
        assert named in said
    assert_hidden(said)
    assert "%sh" not in said
    assert "127.0.0.1" not in said


def test_a_percent_sign_in_the_defaults_of_a_paste_file(failing: Failing, tmp_path: Path) -> None:
    lines = (
        "[DEFAULT]",
        "password = %hush",
        "[filter:related-images]",
        USE,
        "connection = sqlite:///x.db",
    )
    said = failing("--debug", "db", "version", *paste_file(tmp_path, *lines))
    assert "the option password of [" in said
    assert_hidden(said)


def test_doubled_percent_signs_are_an_escape(failing: Failing, tmp_path: Path) -> None:
    url = "connection = mysql+pymysql://us%%25er:hush@127.0.0.1:1/db"
    said = failing("db", "version", *paste_file(tmp_path, "[filter:related-images]", USE, url))
    assert "mysql+pymysql://us%25er:***@127.0.0.1:1/db cannot be used" in said


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["", "with tracebacks"])
@pytest.mark.parametrize(
    "lines",
    [
        ("hush",),
        ("[filter:related-images]", USE, "hush"),
        ("[filter:related-images]", USE, "[hush"),
        ("# h\u00fcsh",),
    ],
    ids=str,
)
def test_a_line_that_is_not_an_option(
    failing: Failing, tmp_path: Path, lines: tuple[str, ...], options: tuple[str, ...]
) -> None:
    where = paste_file(tmp_path, *lines)
    path = Path(where[1])
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    said = failing(*options, "db", "version", *where)
    assert f"{path} cannot be read: " in said
    assert_hidden(said)
    assert "0xfc" not in said


@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["", "with tracebacks"])
@pytest.mark.parametrize("url", WRONG)
def test_a_url_in_a_configuration_file(
    failing: Failing, tmp_path: Path, url: str, options: tuple[str, ...]
) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[related_images]\nconnection = {url}\n", "utf-8")
    said = failing(*options, "db", "version", "--config-file", str(conf))
    assert WRONG[url] in said
    assert_hidden(said)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_reads_a_configuration_file(
    failing: Failing, tmp_path: Path, command: tuple[str, ...]
) -> None:
    url = "mysql+pymysql://u:hush@127.0.0.1:1/db"
    (tmp_path / "10.conf").write_text(f"[related_images]\nconnection = {url}\n")
    for where in (("--config-file", str(tmp_path / "10.conf")), ("--config-dir", str(tmp_path))):
        said = failing("--debug", *command, *where)
        assert "mysql+pymysql://u:***@127.0.0.1:1/db cannot be used" in said
        assert_hidden(said)


@pytest.mark.parametrize("url", WRONG)
def test_a_url_in_the_environment(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OS_RELATED_IMAGES__CONNECTION", url)
    said = failing("--debug", "db", "version")
    assert WRONG[url] in said
    assert_hidden(said)


@pytest.mark.parametrize("password", ["$hush", "x$hush.y", "${hush}", "${related_images.hush}"])
def test_a_dollar_in_a_configuration_file(failing: Failing, tmp_path: Path, password: str) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[related_images]\nconnection = mysql+pymysql://u:{password}@127.0.0.1:1/x\n")
    said = failing("--debug", "db", "version", "--config-file", str(conf))
    assert f"[related_images] of {conf} connection is not valid: " in said
    assert "write $$ for each $" in said
    assert_hidden(said)


@pytest.mark.parametrize(
    "text",
    [
        "hush\n",
        "connection = hush\n",
        "[related_images]\nhush\n",
        "[hush\n",
        "  hush\n",
        "# h\xfcsh\n",
    ],
)
def test_a_line_of_a_configuration_file_that_is_not_an_option(
    failing: Failing, tmp_path: Path, text: str
) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(text, "latin-1")
    said = failing("--debug", "db", "version", "--config-file", str(conf))
    assert f"{conf} cannot be read: " in said
    assert_hidden(said)
    assert "0xfc" not in said


@pytest.mark.parametrize("url", WRONG)
def test_the_filter_in_glance(url: str, caplog: pytest.LogCaptureFixture) -> None:
    raised = ""
    try:
        filter_factory({}, connection=url)
    except ConfigurationError:
        raised = traceback.format_exc()
    assert raised or "relations cannot be recorded" in caplog.text
    assert_hidden(raised + caplog.text)


@pytest.mark.parametrize(
    "url", ["mysql+pymysql://u:hush", "mysql+pymysql://127.0.0.1:1/db?user=u&password=hush"]
)
def test_serve(tmp_path: Path, url: str) -> None:
    glance.write_configuration(tmp_path)
    conf = tmp_path / "glance-api.conf"
    ours = f"connection = sqlite:///{tmp_path}/related-images.db"
    conf.write_text(conf.read_text().replace(ours, f"connection = {url}"))
    words = ["--debug", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", RELATED_IMAGES, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    assert_hidden(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "url",
    [
        "rabbit:/u:hush@127.0.0.1",
        "u:hush@127.0.0.1",
        "rabbit://hu:hush",
        "rabbit://u:hush#1@127.0.0.1:1/",
        "rabbit://u:pw@a:1,b:hush",
        "rabbit://u:pw@127.0.0.1:1/?ssl=hush",
    ],
)
def test_a_transport_url(failing: Failing, sqlite_url: str, url: str) -> None:
    schema.upgrade(sqlite_url)
    words = ("--debug", "listen", "--connection", sqlite_url, "--installation", NOVA)
    said = failing(*words, "--transport-url", url)
    assert "a transport URL cannot be used" in said
    assert_hidden(said)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("rabbit://hu:hush", "a transport URL cannot be used"),
        ("rabbit://u:$hush@127.0.0.1:1/", "write $$ for each $"),
    ],
)
@pytest.mark.parametrize("section", ["DEFAULT", "oslo_messaging_notifications"])
def test_a_transport_url_in_a_configuration_file(
    failing: Failing, tmp_path: Path, sqlite_url: str, section: str, value: str, complaint: str
) -> None:
    schema.upgrade(sqlite_url)
    nova = tmp_path / "nova.conf"
    nova.write_text(f"[{section}]\ntransport_url = {value}\n")
    words = ("--debug", "listen", "--connection", sqlite_url, "--installation", NOVA)
    said = failing(*words, "--config-file", str(nova))
    assert complaint in said
    assert_hidden(said)


def test_a_bus_does_not_show_its_url() -> None:
    assert SECRET not in repr(Bus(NOVA, "rabbit://u:hush@127.0.0.1/", "topic", "nova"))
