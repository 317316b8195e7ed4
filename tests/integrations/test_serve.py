"""``related-images serve``, each time as a process of its own."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest import mock

import glanceclient
import openstack
import pytest

from related_images.client import Forbidden, InstanceAwareImageService
from related_images.integrations import glance as embedded
from tests import commands, servers

pytestmark = pytest.mark.slow

ALICE = "alice:demo:member"
NOVA = {"X-Service-Token": "nova:service:service"}
INSTANCE = {
    "X-Installation-UUID": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "X-Instance-ID": "web-1",
}
IMAGE = {"name": "web-1 on Monday", "disk_format": "raw", "container_format": "bare"}


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a ``serve`` that is expected to fail."""
    inherited = {name: text for name, text in os.environ.items() if name != embedded.PASTE_FILE}
    return subprocess.run(
        [sys.executable, "-c", servers.RELATED_IMAGES, "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=servers.PATIENCE,
        env=inherited | environment,
        check=False,
    )


def assert_refused(
    result: subprocess.CompletedProcess[str], *words: str, exit_code: int = 1
) -> None:
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    for word in words:
        assert word in line


def prepare(data: Path) -> None:
    with mock.patch.dict(os.environ):
        embedded.prepare(data)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with Glance's database, which tests copy."""
    directory = tmp_path_factory.mktemp("template")
    prepare(directory)
    (directory / "glance-api.conf").unlink()
    return directory


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "data")


@pytest.fixture
def served(data: Path) -> Iterator[servers.ServedGlance]:
    with servers.ServedGlance(data) as running:
        yield running


def test_the_printed_commands_work(served: servers.ServedGlance) -> None:
    printed = served.log.read_text()
    assert served.url in printed
    assert str(served.directory) in printed
    script = "\n".join(re.findall(r"^  (\S(?:.*\\\n)*.*)$", printed, re.MULTILINE))
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    created, *answers = done.stdout.split("\n", 3)
    image_id = json.loads(created)["id"]
    listed, related, tables = answers
    assert image_id in listed
    assert image_id in related
    assert tables.count(image_id) == 2


def test_every_start_has_the_same_installation(data: Path) -> None:
    with servers.ServedGlance(data) as served:
        first = (data / "installation-uuid").read_text().strip()
        served.restart()
        printed = served.log.read_text()
    assert uuid.UUID(first).version == 4
    assert (data / "installation-uuid").read_text().strip() == first
    assert printed.count(f"The UUID of the installation (Nova deployment) is {first}") == 2


def test_the_clouds_are_those_of_the_last_start(data: Path) -> None:
    for _ in range(2):
        with servers.ServedGlance(data) as served:
            clouds = (data / "clouds.yaml").read_text()
            assert clouds.count(served.url) == 6


@pytest.fixture(scope="module")
def shared(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.ServedGlance]:
    directory = shutil.copytree(template, tmp_path_factory.mktemp("shared") / "data")
    with servers.ServedGlance(directory) as running:
        yield running


@pytest.fixture
def connect(
    shared: servers.ServedGlance, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], openstack.connection.Connection]:
    """A connection to one of the clouds that ``serve`` has written down."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(shared.directory / "clouds.yaml"))
    return lambda name: openstack.connect(cloud=name)


@pytest.mark.parametrize(
    ("cloud", "sees_all"), [("alice", False), ("nova", False), ("admin", True)]
)
def test_openstacksdk_and_glanceclient_use_each_cloud(
    shared: servers.ServedGlance,
    connect: Callable[[str], openstack.connection.Connection],
    cloud: str,
    sees_all: bool,
) -> None:
    foreign = shared.request("POST", "/v2/images", "bob:other:member", body=IMAGE).json["id"]
    connection = connect(cloud)
    made = connection.image.create_image(name=cloud, disk_format="raw", container_format="bare").id
    listed = {image.id for image in connection.image.images()}
    assert (made in listed, foreign in listed) == (True, sees_all)
    images = glanceclient.Client("2", session=connection.session).images
    assert {image.id for image in images.list()} == listed


@pytest.mark.parametrize("cloud", ["alice", "admin"])
def test_only_the_service_of_the_clouds_records(
    connect: Callable[[str], openstack.connection.Connection], cloud: str
) -> None:
    installation = INSTANCE["X-Installation-UUID"]
    images = InstanceAwareImageService(connect("nova"), installation)
    assert images.create("web-1", kind="snapshot", name="recorded").acknowledgement == "snapshot"
    with pytest.raises(Forbidden, match="one of these roles is needed"):
        InstanceAwareImageService(connect(cloud), installation).create(
            "web-1", kind="snapshot", name="refused"
        )


def test_a_clouds_yaml_of_somebody_else_is_not_overwritten(data: Path) -> None:
    (data / "clouds.yaml").write_text("clouds: {}\n")
    result = serve("--data-dir", str(data))
    assert_refused(result, str(data / "clouds.yaml"), "overwrite", "--data-dir")
    assert (data / "clouds.yaml").read_text() == "clouds: {}\n"


def test_an_installation_that_is_no_uuid_is_named(data: Path) -> None:
    (data / "installation-uuid").write_text("mine\n")
    result = serve("--data-dir", str(data))
    assert_refused(result, str(data / "installation-uuid"), "'mine'", "delete it")


def test_a_second_start_finds_the_data(served: servers.ServedGlance) -> None:
    created = served.request("POST", "/v2/images", ALICE, {**NOVA, **INSTANCE}, IMAGE)
    assert created.headers["X-Relation-Recorded"] == "snapshot"
    file = f"/v2/images/{created.json['id']}/file"
    assert served.request("PUT", file, ALICE, body=b"bits" * 100_000).status == 204
    served.restart()
    assert served.request("GET", file, ALICE).body == b"bits" * 100_000
    listed = served.request("GET", "/v2/images", ALICE, INSTANCE)
    assert listed.headers["X-Relation-Filters-Applied"] == "installation_uuid, instance_id"
    assert [image["id"] for image in listed.json["images"]] == [created.json["id"]]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(served: servers.ServedGlance, end: signal.Signals) -> None:
    assert served.end(end) == 0
    with pytest.raises(ConnectionRefusedError):
        served.request("GET", "/")


def test_a_directory_of_another_process_is_refused(served: servers.ServedGlance) -> None:
    result = serve("--data-dir", str(served.directory))
    assert_refused(result, str(served.directory), "is served by the process", "--data-dir")
    assert served.request("GET", "/v2/images", ALICE).status == 200
    served.restart()


def test_a_copy_of_a_data_directory_is_refused(
    served: servers.ServedGlance, tmp_path: Path
) -> None:
    served.end(signal.SIGTERM)
    copy = shutil.copytree(served.directory, tmp_path / "copy")
    result = serve("--data-dir", str(copy))
    assert_refused(result, str(copy), f"was created as {served.directory}", "--data-dir")
    (copy / "glance-api.conf").write_bytes(
        b"# ge\xe4ndert\n" + (copy / "glance-api.conf").read_bytes()
    )
    assert_refused(serve("--data-dir", str(copy)), f"was created as {served.directory}")


def test_changes_of_the_configuration_stay(data: Path) -> None:
    with servers.ServedGlance(data, {"recording_roles": "scribe"}) as served:
        before = (data / "glance-api.conf").read_text()
        served.restart()
        assert (data / "glance-api.conf").read_text() == before
        answer = served.request("POST", "/v2/images", ALICE, {**NOVA, **INSTANCE}, IMAGE)
        assert answer.status == 403


def test_uploads_of_unknown_length_are_streamed(served: servers.ServedGlance) -> None:
    image_id = served.request("POST", "/v2/images", ALICE, body=IMAGE).json["id"]
    upload = ["curl", "-sS", "--fail", "-T", "-", "-H", f"X-Auth-Token: {ALICE}"]
    binary = ["-H", "Content-Type: application/octet-stream"]
    url = f"{served.url}/v2/images/{image_id}/file"
    subprocess.run([*upload, *binary, url], input=b"x" * 3_000_000, check=True)
    assert served.request("GET", f"/v2/images/{image_id}", ALICE).json["size"] == 3_000_000


def test_concurrent_writers_wait_for_one_another(served: servers.ServedGlance) -> None:
    def create_and_delete(_: int) -> tuple[int, int]:
        created = served.request("POST", "/v2/images", ALICE, body=IMAGE)
        path = f"/v2/images/{created.json['id']}"
        return created.status, served.request("DELETE", path, ALICE).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(create_and_delete, range(40))) == {(201, 204)}


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = serve("--port", port, "--data-dir", str(tmp_path))
    assert_refused(result, "127.0.0.1", port, "in use", "--port")


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    result = serve("--data-dir", str(tmp_path / "file" / "data"))
    assert_refused(result, str(tmp_path / "file"), "--data-dir")


def test_a_path_that_configuration_cannot_contain_is_refused(tmp_path: Path) -> None:
    assert_refused(serve("--data-dir", str(tmp_path / "a$b")), "'$'", "--data-dir")


@pytest.mark.parametrize("options", [(), ("--allow-remote",), ("--believe-every-token",)])
def test_an_address_that_other_hosts_can_reach_is_refused(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    result = serve("--host", "0.0.0.0", "--data-dir", str(tmp_path), *options)
    assert_refused(result, "0.0.0.0", "--allow-remote --believe-every-token")


@pytest.mark.parametrize("options", [("--port", "70000"), ("--threads", "0"), ("--port", "x")])
def test_wrong_usage_exits_with_2(options: tuple[str, ...]) -> None:
    result = serve(*options)
    assert result.returncode == 2
    assert options[0] in result.stderr


def test_a_newer_schema_is_refused(data: Path) -> None:
    with servers.ServedGlance(data):
        pass
    execute(data / "related-images.db", "UPDATE related_alembic_version SET version_num = '9999'")
    assert_refused(serve("--data-dir", str(data)), "9999", "install the version")


def test_a_database_of_another_glance_is_refused(data: Path) -> None:
    execute(data / "glance.db", "UPDATE alembic_version SET version_num = 'later'")
    (data / "glance-version").write_text("99.0.0")
    assert_refused(serve("--data-dir", str(data)), "glance.db", "later", "--data-dir")


def test_an_unknown_option_of_the_filter_is_refused(data: Path) -> None:
    embedded.write_configuration(data)
    with (data / "glance-api.conf").open("a") as file:
        file.write("recording_role = scribe\n")
    assert_refused(serve("--data-dir", str(data)), "'recording_role'", "recording_roles")


def test_a_pipeline_with_authtoken_is_refused(data: Path) -> None:
    paste = servers.paste_without(data)
    text = paste.read_text().replace(
        "development-identity context", "authtoken development-identity context"
    )
    paste.write_text(f"{text}\n[filter:authtoken]\nuse = egg:keystonemiddleware#auth_token\n")
    result = serve("--data-dir", str(data), **{embedded.PASTE_FILE: str(paste)})
    assert_refused(result, "authtoken", "remove the development identity", exit_code=3)


def execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement).rowcount >= 1


def test_a_missing_glance_is_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # tests run in an environment with Glance
    monkeypatch.setitem(sys.modules, "glance", None)
    assert commands.run("serve", "--port", "0", "--data-dir", str(tmp_path)) == 1
    assert "pip install 'related-images[glance]'" in capfd.readouterr().err


INSERT = (
    "INSERT INTO images (id, status, created_at, deleted, min_disk, min_ram) "
    "VALUES (?, 'active', '2026-01-01', 0, 0, 0)"
)
BY_IDS = (
    "SELECT id FROM images WHERE os_hidden = 0 AND deleted = 0 AND status IN ('active', 'queued') "
    "AND id IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ORDER BY created_at DESC, id DESC LIMIT 25"
)
"""Glance's query for an image list with ``id=in:``."""


def make_images(data: Path, number: int) -> None:
    with closing(sqlite3.connect(data / "glance.db")) as database, database:
        database.executemany(INSERT, [(str(uuid.uuid4()),) for _ in range(number)])


def plan(data: Path) -> str:
    with closing(sqlite3.connect(data / "glance.db")) as database:
        rows = database.execute("EXPLAIN QUERY PLAN " + BY_IDS, ["an id"] * 10)
        return "; ".join(row[-1] for row in rows)


def statistics(data: Path) -> dict[str, str]:
    with closing(sqlite3.connect(data / "glance.db")) as database:
        return dict(database.execute("SELECT idx, stat FROM sqlite_stat1 WHERE tbl = 'images'"))


def test_a_start_with_many_images_lets_sqlite_find_them_by_id(data: Path) -> None:
    make_images(data, 1000)
    assert "(id=?)" not in plan(data)
    prepare(data)
    assert "(id=?)" in plan(data)


def test_statistics_are_updated_after_many_more_images(data: Path) -> None:
    make_images(data, 100)
    prepare(data)
    first = statistics(data)
    make_images(data, 800)
    prepare(data)
    assert statistics(data) == first
    make_images(data, 200)
    prepare(data)
    assert statistics(data) != first


def test_a_busy_database_is_served_without_statistics(data: Path) -> None:
    make_images(data, 1000)
    with closing(sqlite3.connect(data / "glance.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        prepare(data)
    assert "(id=?)" not in plan(data)
