"""The commands as an operator runs them: what they print, and their exit codes."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from related_images import config
from related_images.db import relations, schema
from related_images.db.database import Database
from tests import commands, servers
from tests.db.hosts import run as execute
from tests.db.samples import NOVA, new, record

NEEDED = schema.REVISIONS[-1]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run one command; gives its exit code, what it printed, and its errors."""

    def run(*words: str) -> tuple[int, str, str]:
        code = commands.run(*words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def sqlite(sqlite_url: str) -> tuple[str, str]:
    """The words that name a database of SQLite with our tables."""
    schema.upgrade(sqlite_url)
    return "--connection", sqlite_url


def asked(command: Command, *words: str) -> Any:
    """What the command answers to a program."""
    code, printed, _ = command(*words, "-f", "json")
    assert code == 0
    return json.loads(printed)


def told(answer: tuple[int, str, str]) -> str:
    """The one line of a failure."""
    code, printed, line = answer
    assert (code, printed) == (1, "")
    assert line.count("\n") == 1
    return line


def test_a_command_does_not_look_through_all_that_is_installed(
    command: Command, monkeypatch: pytest.MonkeyPatch, sqlite: tuple[str, str]
) -> None:
    monkeypatch.setattr("cliff.command._dists_by_mods", None)
    monkeypatch.delattr("cliff.command.packages_distributions")
    assert command("generate-installation-uuid")[0] == 0
    assert command("db", "version", *sqlite)[0] == 0


def test_without_a_command_the_help_is_printed(command: Command) -> None:
    code, printed, _ = command()
    assert code == 0
    for name in ("db upgrade", "db purge", "installation add", "generate-installation-uuid"):
        assert name in printed


@pytest.mark.parametrize("entry", entry_points(group="related_images.manage"), ids=str)
def test_every_command_tells_its_exit_codes(command: Command, entry: Any) -> None:
    code, printed, _ = command(*entry.name.split("_"), "--help")
    assert code == 0
    assert "Exit codes:" in printed


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("db", "purge"),
        ("db", "purge", "--older-than", "90"),
        ("db", "upgrade", "--to", "9999"),
        ("db", "version", "--connection", "sqlite:///a", "--paste", "b"),
        ("installation", "add", NOVA),
        ("installation", "add", "nova", "--name", "x"),
        ("installation", "add", NOVA, "--name", "n" * 256),
    ],
)
def test_wrong_usage(command: Command, words: tuple[str, ...]) -> None:
    assert command(*words)[0] == 2


def test_a_uuid_is_made_anew_each_time(command: Command) -> None:
    first, second = (command("generate-installation-uuid")[1] for _ in range(2))
    assert UUID(first.strip()) != UUID(second.strip())


def test_a_uuid_is_made_as_lines_for_a_file(command: Command) -> None:
    _, printed, _ = command("generate-installation-uuid", "--format", "conf")
    *_, factory, uuid = printed.splitlines()
    assert factory == "paste.filter_factory = related_images.integrations.nova:filter_factory"
    name, _, value = uuid.partition(" = ")
    assert (name, str(UUID(value))) == ("installation_uuid", value)


def test_the_tables_are_made_checked_and_their_version_shown(
    command: Command, database_url: str
) -> None:
    where = ("--connection", database_url)
    beside_the_registry(database_url)
    assert command("db", "upgrade", *where)[0] == 0
    assert command("db", "upgrade", *where)[0] == 0
    assert asked(command, "db", "version", *where) == {"version": NEEDED, "needed": NEEDED}
    assert asked(command, "db", "check", *where) == []


def beside_the_registry(url: str) -> None:
    """A table of the registry stands in the same database."""
    execute(url, "CREATE TABLE images (id INTEGER)")


def test_what_is_missing_is_listed(command: Command, sqlite: tuple[str, str]) -> None:
    execute(sqlite[1], "DROP TABLE related_state")
    code, printed, _ = command("db", "check", *sqlite, "-f", "json")
    assert code == 3
    assert [row["problem"] for row in json.loads(printed)] == ["missing: table related_state"]


def test_a_database_without_our_tables(command: Command, sqlite_url: str) -> None:
    where = ("--connection", sqlite_url)
    execute(sqlite_url, "CREATE TABLE images (id INTEGER)")
    assert asked(command, "db", "version", *where)["version"] is None
    code, printed, _ = command("db", "check", *where)
    assert code == 3
    assert "related-images db upgrade" in printed
    assert "related-images db upgrade" in told(command("installation", "list", *where))


def test_tables_of_a_later_version(command: Command, sqlite: tuple[str, str]) -> None:
    execute(sqlite[1], "UPDATE related_alembic_version SET version_num = '9999'")
    for words in (("db", "upgrade"), ("installation", "list"), ("db", "purge", "--older-than=1d")):
        assert "install the version of related-images" in told(command(*words, *sqlite))
    assert command("db", "check", *sqlite)[0] == 3


def test_a_file_that_is_not_there_is_not_made(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    for words in (("db", "version"), ("db", "check"), ("installation", "list")):
        line = told(command(*words, "--connection", f"sqlite:///{path}"))
        assert "related-images db upgrade" in line
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "an SQLAlchemy URL is needed"),
        ("nosuch://host/database", "nosuch"),
        ("mysql+nosuch://host/database", "write mysql+pymysql:// or mysql+mysqldb://"),
        ("sqlite:////missing/directory/related-images.db", "unable to open"),
    ],
)
def test_a_url_that_cannot_be_used(command: Command, url: str, reason: str) -> None:
    assert reason in told(command("db", "upgrade", "--connection", url))


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
@pytest.mark.parametrize("words", [("db", "upgrade"), ("db", "check"), ("installation", "list")])
def test_a_server_that_is_not_there(command: Command, driver: str, words: tuple[str, ...]) -> None:
    url = f"{driver}://user:secret@127.0.0.1:{servers.free_port()}/nothing"
    line = told(command(*words, "--connection", url))
    assert "check that the address is right" in line
    assert "secret" not in line


def test_a_database_that_can_only_be_read(command: Command, sqlite: tuple[str, str]) -> None:
    path = sqlite[1].removeprefix("sqlite:///")
    where = ("--connection", f"sqlite:///file:{path}?mode=ro&uri=true")
    assert asked(command, "installation", "list", *where) == []
    assert "readonly" in told(command("installation", "add", NOVA, "--name", "east", *where))


def test_a_traceback_is_shown_to_who_asks(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command("db", "version", "--connection", f"sqlite:///{tmp_path}/typo.db", "--debug")
    assert "Traceback" in caplog.text


def test_the_database_of_the_filter_in_a_paste_file(
    command: Command, sqlite: tuple[str, str], tmp_path: Path
) -> None:
    paste = tmp_path / "paste.ini"
    paste.write_text(
        "[DEFAULT]\nname = ours\n"
        "[filter:context]\npaste.filter_factory = glance.api:factory\n"
        "[filter:ours]\nuse = egg:related-images#instance_aware\nrecording_roles = service, nova\n"
        "connection = sqlite:///%(here)s/related-images.db\n"
    )
    found = asked(command, "db", "version", "--paste", str(paste))
    assert found["version"] == NEEDED


def test_the_database_in_the_configuration_that_a_paste_file_names(
    command: Command, sqlite: tuple[str, str], tmp_path: Path
) -> None:
    conf, paste = tmp_path / "glance-api.conf", tmp_path / "paste.ini"
    conf.write_text(f"[related_images]\nconnection = {sqlite[1]}\n")
    factory = "paste.filter_factory = related_images.middleware:filter_factory"
    paste.write_text(f"[filter:ours]\n{factory}\noslo_config_file = {conf}\n")
    found = asked(command, "db", "version", "--paste", str(paste))
    assert found["version"] == NEEDED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("no section", "cannot be read"),
        ("[filter:other]\nuse = egg:other\n", "has no filter section"),
        ("[filter:o]\nuse = egg:related-images#instance_aware\nconection = x\n", "conection"),
        ("[filter:o]\nuse = egg:related-images#instance_aware\n", "write `connection`"),
        (
            "[filter:a]\nuse = egg:related-images#instance_aware\nconnection = sqlite:///a\n"
            "[filter:b]\nuse = egg:related-images#instance_aware\nconnection = sqlite:///b\n",
            "several databases",
        ),
    ],
)
def test_a_paste_file_that_does_not_say(
    command: Command, tmp_path: Path, text: str | None, reason: str
) -> None:
    paste = tmp_path / "paste.ini"
    if text is not None:
        paste.write_text(text)
    assert reason in told(command("db", "version", "--paste", str(paste)))


PLACES = ("connection", "paste", "environment", "directory", "second", "first", "glance")
"""Where a command finds its database, the strongest first; the last is used with a paste file."""

EXCLUSIVE = [("connection", "paste"), ("connection", "glance")]


@pytest.mark.parametrize(
    "pair", [pair for pair in itertools.combinations(PLACES, 2) if pair not in EXCLUSIVE], ids=str
)
def test_the_stronger_place_names_the_database(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]
) -> None:
    monkeypatch.delenv("OS_GLANCE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in (pair[1:], pair):
        urls = {place: f"sqlite:///{tmp_path}/{place}.db" for place in named}
        if "environment" in named:
            monkeypatch.setenv("OS_RELATED_IMAGES__CONNECTION", urls["environment"])
        said = told(command("db", "version", *naming(tmp_path, urls)))
        assert f"{urls[named[0]]}: there is no such file" in said


def naming(directory: Path, urls: dict[str, str]) -> list[str]:
    """Write each URL to its place; gives the words by which a command looks there."""
    lines = {place: f"connection = {url}\n" for place, url in urls.items()}
    sections = {place: f"[related_images]\n{line}" for place, line in lines.items()}
    words = []
    if "connection" in urls:
        words += ["--connection", urls["connection"]]
    if urls.keys() & {"paste", "glance"}:
        ours = "[filter:ours]\nuse = egg:related-images#instance_aware\n"
        (directory / "paste.ini").write_text(ours + lines.get("paste", ""))
        (directory / "glance-api.conf").write_text(sections.get("glance", ""))
        words += ["--paste", str(directory / "paste.ini")]
    if "directory" in urls:
        (directory / "conf.d").mkdir(exist_ok=True)
        (directory / "conf.d" / "10.conf").write_text(sections["directory"])
        words += ["--config-dir", str(directory / "conf.d")]
    for name in ("first", "second"):
        if name in urls:
            (directory / f"{name}.conf").write_text(sections[name])
            words += ["--config-file", str(directory / f"{name}.conf")]
    return words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: [Errno 2]"),
        ("[related_images]\n", "no configuration file names the database"),
        (
            "[related_images]\nconection = x\n",
            "unknown option 'conection'; allowed are: connection",
        ),
        ("[related_images]\nguard = on\n", "guard = 'on' is not valid"),
    ],
)
def test_a_configuration_file_that_does_not_say(
    command: Command, tmp_path: Path, text: str | None, reason: str
) -> None:
    conf = tmp_path / "glance-api.conf"
    if text is not None:
        conf.write_text(text)
    said = told(command("db", "version", "--config-file", str(conf)))
    assert reason in said
    assert str(conf) in said


def test_the_help_names_the_default() -> None:
    done = subprocess.run(
        [sys.executable, "-c", servers.RELATED_IMAGES, "db", "version", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert config.DEFAULT_CONNECTION in done.stdout


def test_a_configuration_directory_that_is_not_there(command: Command, tmp_path: Path) -> None:
    said = told(command("db", "version", "--config-dir", str(tmp_path / "none")))
    assert f"{tmp_path}/none is not a directory" in said


def test_installations_are_added_listed_and_removed(
    command: Command, sqlite: tuple[str, str]
) -> None:
    add = ("installation", "add", NOVA.upper(), "--service-user-id", "nova", *sqlite)
    added = asked(command, *add, "--name", "east")
    assert added["registered_at"].endswith("Z")
    assert (added["uuid"], added["name"], added["service_user_id"]) == (NOVA, "east", "nova")
    assert asked(command, *add, "--name", "east") == added
    assert "`related-images installation remove" in told(command(*add, "--name", "west"))
    assert asked(command, "installation", "list", *sqlite) == [added]
    assert command("installation", "remove", NOVA, *sqlite)[0] == 0
    assert NOVA in told(command("installation", "remove", NOVA, *sqlite))
    assert asked(command, "installation", "list", *sqlite) == []


def test_a_purge_counts_first_and_then_removes(command: Command, sqlite: tuple[str, str]) -> None:
    database, wanted = Database(sqlite[1], 5.0), new()
    record(database, wanted, new())
    long_ago = datetime.now(UTC) - timedelta(days=91)
    database.write(relations.mark_deleted, wanted.image_id, long_ago)
    purge = ("db", "purge", "--older-than", "90d", *sqlite)
    nothing = {"relations": 0, "images": 0, "instances": 0}
    assert asked(command, *purge, "--dry-run") == nothing | {"relations": 1}
    assert asked(command, *purge) == nothing | {"relations": 1, "images": 1}
    assert asked(command, *purge) == nothing
    assert asked(command, "db", "purge", "--older-than", "0d", *sqlite) == nothing
    database.close()


def test_a_pooler_that_refuses_an_option_is_told_by_a_check(
    command: Command, postgresql: servers.DatabaseServer
) -> None:
    with servers.pgbouncer(postgresql, "transaction") as pooler:
        where = ("--connection", pooler.create())
        assert command("db", "upgrade", *where)[0] == 0
        assert asked(command, "db", "check", *where) == []
        with_option = f"{where[1]}?options=-csearch_path%3Dpublic"
        line = told(command("db", "check", "--connection", with_option))
    assert "unsupported startup parameter: options" in line


def test_no_command_tells_a_password(command: Command, mariadb: servers.DatabaseServer) -> None:
    url = f"{mariadb.create().replace('root@', 'root:s3cret@')}?password=s3cret"
    for words in (("db", "check"), ("db", "upgrade"), ("installation", "list")):
        _, printed, line = command(*words, "--connection", url)
        assert "s3cret" not in printed + line
