"""Output and exit codes of the commands."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from related_images import config
from related_images.db import merge, relations, schema
from related_images.db.database import Database
from tests import commands, servers
from tests.db.samples import NOVA, OTHER_NOVA, new, record, server
from tests.db.server_failures import run as execute

NEEDED = schema.REVISIONS[-1]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command and returns exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        code = commands.run(*words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def sqlite(sqlite_url: str) -> tuple[str, str]:
    """The arguments for a SQLite database with the tables of related-images."""
    schema.upgrade(sqlite_url)
    return "--connection", sqlite_url


def json_output(command: Command, *words: str) -> Any:
    """Return the JSON output of a command."""
    code, printed, _ = command(*words, "-f", "json")
    assert code == 0
    return json.loads(printed)


def error_line(result: tuple[int, str, str]) -> str:
    """Return the only line that a failed command writes."""
    code, printed, line = result
    assert (code, printed) == (1, "")
    assert line.count("\n") == 1
    return line


def test_a_command_does_not_read_all_installed_distributions(
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
def test_every_command_documents_its_exit_codes(command: Command, entry: Any) -> None:
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


def test_each_generated_uuid_is_different(command: Command) -> None:
    first, second = (command("generate-installation-uuid")[1] for _ in range(2))
    assert UUID(first.strip()) != UUID(second.strip())


def test_a_uuid_is_generated_as_a_section_of_a_paste_file(command: Command) -> None:
    _, printed, _ = command("generate-installation-uuid", "--format", "conf")
    *_, factory, uuid = printed.splitlines()
    assert factory == "paste.filter_factory = related_images.integrations.nova:filter_factory"
    name, _, value = uuid.partition(" = ")
    assert (name, str(UUID(value))) == ("installation_uuid", value)


def test_the_schema_is_upgraded_checked_and_its_version_shown(
    command: Command, database_url: str
) -> None:
    where = ("--connection", database_url)
    create_table_of_glance(database_url)
    assert command("db", "upgrade", *where)[0] == 0
    assert command("db", "upgrade", *where)[0] == 0
    assert json_output(command, "db", "version", *where) == {"version": NEEDED, "needed": NEEDED}
    assert json_output(command, "db", "check", *where) == []


def test_an_upgrade_of_the_default_database_warns(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("db", "upgrade")
    assert (code, (tmp_path / "related-images.db").exists()) == (0, True)
    assert "this is the default database; if the filter has another one, give" in errors
    code, _, errors = command("db", "upgrade", "--connection", f"sqlite:///{tmp_path}/own.db")
    assert (code, "this is the default" in errors) == (0, False)


def create_table_of_glance(url: str) -> None:
    """Create a table as if Glance used the same database."""
    execute(url, "CREATE TABLE images (id INTEGER)")


def test_a_missing_table_is_listed(command: Command, sqlite: tuple[str, str]) -> None:
    execute(sqlite[1], "DROP TABLE related_state")
    code, printed, _ = command("db", "check", *sqlite, "-f", "json")
    assert code == 3
    assert [row["problem"] for row in json.loads(printed)] == ["missing: table related_state"]


def test_a_database_without_tables_of_related_images(command: Command, sqlite_url: str) -> None:
    where = ("--connection", sqlite_url)
    execute(sqlite_url, "CREATE TABLE images (id INTEGER)")
    assert json_output(command, "db", "version", *where)["version"] is None
    code, printed, _ = command("db", "check", *where)
    assert code == 3
    assert "related-images db upgrade" in printed
    assert "related-images db upgrade" in error_line(command("installation", "list", *where))


def test_a_newer_schema_is_refused(command: Command, sqlite: tuple[str, str]) -> None:
    execute(sqlite[1], "UPDATE related_alembic_version SET version_num = '9999'")
    for words in (("db", "upgrade"), ("installation", "list"), ("db", "purge", "--older-than=1d")):
        assert "install the version of related-images" in error_line(command(*words, *sqlite))
    assert command("db", "check", *sqlite)[0] == 3


def test_a_missing_file_is_not_created(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    for words in (("db", "version"), ("db", "check"), ("installation", "list")):
        line = error_line(command(*words, "--connection", f"sqlite:///{path}"))
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
def test_an_invalid_url_is_refused(command: Command, url: str, reason: str) -> None:
    assert reason in error_line(command("db", "upgrade", "--connection", url))


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
@pytest.mark.parametrize("words", [("db", "upgrade"), ("db", "check"), ("installation", "list")])
def test_an_unreachable_database_server(
    command: Command, driver: str, words: tuple[str, ...]
) -> None:
    url = f"{driver}://user:secret@127.0.0.1:{servers.free_port()}/nothing"
    line = error_line(command(*words, "--connection", url))
    assert "check the address" in line
    assert "secret" not in line


def test_a_read_only_database(command: Command, sqlite: tuple[str, str]) -> None:
    path = sqlite[1].removeprefix("sqlite:///")
    where = ("--connection", f"sqlite:///file:{path}?mode=ro&uri=true")
    assert json_output(command, "installation", "list", *where) == []
    assert "readonly" in error_line(command("installation", "add", NOVA, "--name", "east", *where))


def test_debug_shows_a_traceback(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command("db", "version", "--connection", f"sqlite:///{tmp_path}/typo.db", "--debug")
    assert "Traceback" in caplog.text


def test_the_database_of_the_filter_in_a_paste_file(
    command: Command, sqlite: tuple[str, str], tmp_path: Path
) -> None:
    paste = tmp_path / "paste.ini"
    paste.write_text(
        "[DEFAULT]\nname = value\n"
        "[filter:context]\npaste.filter_factory = glance.api:factory\n"
        "[filter:related-images]\nuse = egg:related-images#instance_aware\n"
        "recording_roles = service, nova\n"
        "connection = sqlite:///%(here)s/related-images.db\n"
    )
    found = json_output(command, "db", "version", "--paste", str(paste))
    assert found["version"] == NEEDED


def test_the_database_in_the_configuration_that_a_paste_file_names(
    command: Command, sqlite: tuple[str, str], tmp_path: Path
) -> None:
    conf, paste = tmp_path / "glance-api.conf", tmp_path / "paste.ini"
    conf.write_text(f"[related_images]\nconnection = {sqlite[1]}\n")
    factory = "paste.filter_factory = related_images.middleware:filter_factory"
    paste.write_text(f"[filter:related-images]\n{factory}\noslo_config_file = {conf}\n")
    found = json_output(command, "db", "version", "--paste", str(paste))
    assert found["version"] == NEEDED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("no section", "cannot be read"),
        ("[filter:other]\nuse = egg:other\n", "has no filter section"),
        ("[filter:o]\nuse = egg:related-images#instance_aware\nconection = x\n", "conection"),
        ("[filter:o]\nuse = egg:related-images#instance_aware\n", "set `connection`"),
        (
            "[filter:a]\nuse = egg:related-images#instance_aware\nconnection = sqlite:///a\n"
            "[filter:b]\nuse = egg:related-images#instance_aware\nconnection = sqlite:///b\n",
            "several databases",
        ),
    ],
)
def test_a_paste_file_without_one_database_is_refused(
    command: Command, tmp_path: Path, text: str | None, reason: str
) -> None:
    paste = tmp_path / "paste.ini"
    if text is not None:
        paste.write_text(text)
    assert reason in error_line(command("db", "version", "--paste", str(paste)))


SOURCES = ("connection", "paste", "environment", "directory", "second", "first", "glance")
"""The sources of the database URL, by precedence; the last one is used with a paste file only."""

EXCLUSIVE = [("connection", "paste"), ("connection", "glance")]


@pytest.mark.parametrize(
    "pair", [pair for pair in itertools.combinations(SOURCES, 2) if pair not in EXCLUSIVE], ids=str
)
def test_the_source_with_the_higher_precedence_wins(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]
) -> None:
    monkeypatch.delenv("OS_GLANCE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for sources in (pair[1:], pair):
        urls = {source: f"sqlite:///{tmp_path}/{source}.db" for source in sources}
        if "environment" in sources:
            monkeypatch.setenv("OS_RELATED_IMAGES__CONNECTION", urls["environment"])
        line = error_line(command("db", "version", *write_sources(tmp_path, urls)))
        assert f"{urls[sources[0]]}: the file does not exist" in line


def write_sources(directory: Path, urls: dict[str, str]) -> list[str]:
    """Write each URL to its source, and return the arguments that make a command read it."""
    lines = {source: f"connection = {url}\n" for source, url in urls.items()}
    sections = {source: f"[related_images]\n{line}" for source, line in lines.items()}
    words = []
    if "connection" in urls:
        words += ["--connection", urls["connection"]]
    if urls.keys() & {"paste", "glance"}:
        section = "[filter:related-images]\nuse = egg:related-images#instance_aware\n"
        (directory / "paste.ini").write_text(section + lines.get("paste", ""))
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
        ("[related_images]\n", "no configuration file sets the database"),
        (
            "[related_images]\nconection = x\n",
            "unknown option 'conection'; allowed are: connection",
        ),
        ("[related_images]\nguard = on\n", "guard = 'on' is not valid"),
    ],
)
def test_a_configuration_file_without_a_database_is_refused(
    command: Command, tmp_path: Path, text: str | None, reason: str
) -> None:
    conf = tmp_path / "glance-api.conf"
    if text is not None:
        conf.write_text(text)
    line = error_line(command("db", "version", "--config-file", str(conf)))
    assert reason in line
    assert str(conf) in line


def test_the_help_shows_the_default_database() -> None:
    done = subprocess.run(
        [sys.executable, "-c", servers.RELATED_IMAGES, "db", "version", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert config.DEFAULT_CONNECTION in done.stdout


def test_a_missing_configuration_directory_is_refused(command: Command, tmp_path: Path) -> None:
    line = error_line(command("db", "version", "--config-dir", str(tmp_path / "none")))
    assert f"{tmp_path}/none is not a directory" in line


def test_installations_are_added_listed_and_removed(
    command: Command, sqlite: tuple[str, str]
) -> None:
    users = ("--service-user", "nova:server", "--service-user", "cinder:volume-backup,volume")
    add = ("installation", "add", NOVA.upper(), *users, "--service-user", "glance", *sqlite)
    added = json_output(command, *add, "--name", "east")
    assert added["registered_at"].endswith("Z")
    assert (added["uuid"], added["name"]) == (NOVA, "east")
    assert added["service_users"] == [
        {"user_id": "nova", "resource_types": ["server"]},
        {"user_id": "cinder", "resource_types": ["volume", "volume-backup"]},
        {"user_id": "glance", "resource_types": None},
    ]
    assert json_output(command, *add, "--name", "east") == added
    assert "`related-images installation remove" in error_line(command(*add, "--name", "west"))
    assert json_output(command, "installation", "list", *sqlite) == [added]
    table = command("installation", "list", "-c", "service_users", *sqlite)[1]
    assert "| nova:server cinder:volume,volume-backup glance |" in table
    assert command("installation", "remove", NOVA, *sqlite)[0] == 0
    assert NOVA in error_line(command("installation", "remove", NOVA, *sqlite))
    assert json_output(command, "installation", "list", *sqlite) == []


def test_a_merge_counts_in_a_dry_run_and_then_moves(
    command: Command, sqlite: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, made = Database(sqlite[1], 5.0), new()
    record(database, made, replace(made, instance=server("vm-1", OTHER_NOVA)), new("vm-2"))
    words = ("installation", "merge", NOVA.upper(), OTHER_NOVA, *sqlite)
    counted = {"moved": 1, "united": 1, "duplicates": 1, "left": 2}
    assert json_output(command, *words, "--dry-run") == counted
    assert json_output(command, *words) == counted | {"left": 0}
    assert json_output(command, *words) == dict.fromkeys(counted, 0)
    assert "cannot be merged into itself" in error_line(
        command("installation", "merge", NOVA, NOVA, *sqlite)
    )
    unknown = command("installation", "merge", NOVA, str(uuid4()), *sqlite)
    assert "is neither registered nor recorded" in error_line(unknown)
    monkeypatch.setattr(merge, "_count_resources", lambda *_: 7)
    code, _, errors = command(*words)
    assert code == 3
    assert f"7 resources of {NOVA} were reported after the merge had passed them" in errors
    database.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "user_id='' is malformed; give 1 to 255 printable"),
        ("nova:", "the resource type '' is malformed; give 1 to 64 of the characters"),
        ("nova:server,a b", "the resource type 'a b' is malformed"),
    ],
)
def test_a_malformed_service_user_is_wrong_usage(command: Command, text: str, words: str) -> None:
    code, _, errors = command("installation", "add", NOVA, "--name", "n", "--service-user", text)
    assert code == 2
    assert words in errors


def test_a_service_user_cannot_have_a_type_that_is_not_registered(
    command: Command, sqlite: tuple[str, str]
) -> None:
    stack = ("--service-user", "heat:stack")
    done = command("installation", "add", NOVA, "--name", "n", *stack, *sqlite)
    assert "the resource type stack is not registered" in error_line(done)
    assert json_output(command, "installation", "list", *sqlite) == []


def test_a_service_user_may_be_named_once(command: Command, sqlite: tuple[str, str]) -> None:
    twice = ("--service-user", "nova:server", "--service-user", "nova:volume")
    done = command("installation", "add", NOVA, "--name", "n", *twice, *sqlite)
    assert "names the user 'nova' twice" in error_line(done)
    assert json_output(command, "installation", "list", *sqlite) == []


def test_a_purge_counts_in_a_dry_run_and_then_removes(
    command: Command, sqlite: tuple[str, str]
) -> None:
    database, wanted = Database(sqlite[1], 5.0), new()
    record(database, wanted, new())
    long_ago = datetime.now(UTC) - timedelta(days=91)
    database.write(relations.mark_deleted, wanted.image_id, long_ago)
    purge = ("db", "purge", "--older-than", "90d", *sqlite)
    nothing = {"relations": 0, "images": 0, "instances": 0}
    assert json_output(command, *purge, "--dry-run") == nothing | {"relations": 1}
    assert json_output(command, *purge) == nothing | {"relations": 1, "images": 1}
    assert json_output(command, *purge) == nothing
    assert json_output(command, "db", "purge", "--older-than", "0d", *sqlite) == nothing
    database.close()


def test_the_time_that_a_restored_copy_lacks_is_a_gap_of_every_expected_witness(
    command: Command, sqlite: tuple[str, str]
) -> None:
    restored = ("db", "restored", *sqlite, "--copied-at")
    assert "no witness is expected" in error_line(command(*restored, "never"))
    expected = ("--witness", "nova-api", "--witness", "nova-bus")
    assert command("installation", "add", NOVA, "--name", "n", *expected, *sqlite)[0] == 0
    assert "in the future" in error_line(command(*restored, "2999-01-31T12:00:00Z"))
    assert command(*restored, "yesterday")[0] == 2
    copied_at = "2026-01-31T12:00:00.000000Z"
    for text, begin in (("never", None), (copied_at, copied_at)):
        rows = json_output(command, *restored, text)
        assert [(row["witness"], row["from"]) for row in rows] == [
            ("nova-api", begin),
            ("nova-bus", begin),
        ]
        assert {row["installation_uuid"] for row in rows} == {NOVA}


def test_a_check_reports_that_pgbouncer_refuses_an_option(
    command: Command, postgresql: servers.DatabaseServer
) -> None:
    with servers.pgbouncer(postgresql, "transaction") as pooler:
        where = ("--connection", pooler.create())
        assert command("db", "upgrade", *where)[0] == 0
        assert json_output(command, "db", "check", *where) == []
        with_option = f"{where[1]}?options=-csearch_path%3Dpublic"
        line = error_line(command("db", "check", "--connection", with_option))
    assert "unsupported startup parameter: options" in line


def test_no_command_shows_a_password(command: Command, mariadb: servers.DatabaseServer) -> None:
    url = f"{mariadb.create().replace('root@', 'root:s3cret@')}?password=s3cret"
    for words in (("db", "check"), ("db", "upgrade"), ("installation", "list")):
        _, printed, line = command(*words, "--connection", url)
        assert "s3cret" not in printed + line
