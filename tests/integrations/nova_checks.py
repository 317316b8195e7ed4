"""Loading of the paste filter of nova-api. Its effects are tested in tests/nova."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from nova.conf import CONF

from related_images.errors import ConfigurationError, NovaUnexpected, TupleMalformed
from related_images.integrations import nova
from related_images.integrations.heartbeats import ProcessHeartbeat
from related_images.integrations.patching import PatchTarget
from related_images.integrations.reporting import Reports

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
TARGETS = (
    *(nova.CREATE_IMAGE, nova.SNAPSHOT_VOLUMES, nova.MAKE_CLIENT, nova.MAKE_ERROR),
    *(nova.PREPARE_SERVERS, nova.REBUILD, nova.LAST_CHECK_OF_REBUILD),
    *(nova.DELETE_EARLY, nova.CLEAN_UP_SERVERS, nova.FIND_GLANCE),
    *(nova.SNAPSHOT_VOLUME, nova.GET_SNAPSHOT, nova.DELETE_SNAPSHOT),
)
CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
OTHER_NOVA = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    """Restore Nova's functions after each test."""
    found = [(owner, name) for owner, name, _ in map(nova.NOVA.find, TARGETS)]
    functions = [vars(owner)[name] for owner, name in found]
    yield
    for (owner, name), function in zip(found, functions, strict=True):
        setattr(owner, name, function)
    nova._installed.clear()


def answer(environ: Any, start_response: Any) -> list[bytes]:
    return [environ["PATH_INFO"]]


def test_each_pipeline_loads_the_filter() -> None:
    for _ in range(2):
        app = nova.filter_factory({"here": "/"}, installation_uuid=NOVA.upper())(answer)
        assert app({"PATH_INFO": b"/v2.1"}, print) == [b"/v2.1"]  # type: ignore[arg-type]


def test_the_first_request_starts_the_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: SimpleQueue[ProcessHeartbeat] = SimpleQueue()
    monkeypatch.setattr(Reports, "_beat", lambda _, beat: beats.put(beat))
    CONF.set_override("send_service_user_token", True, group="service_user")
    try:
        apps = [nova.filter_factory({}, installation_uuid=NOVA)(answer) for _ in range(2)]
    finally:
        CONF.clear_override("send_service_user_token", group="service_user")
    assert beats.empty()
    for app in apps:
        app({"PATH_INFO": b"/"}, print)  # type: ignore[arg-type]
    assert beats.get(timeout=60).until
    assert beats.empty()


def test_without_service_user_there_are_no_heartbeats() -> None:
    app = nova.filter_factory({}, installation_uuid=NOVA)(answer)
    before = threading.active_count()
    app({"PATH_INFO": b"/"}, print)  # type: ignore[arg-type]
    assert threading.active_count() == before


@pytest.mark.parametrize("sends", [True, False])
def test_it_warns_without_service_user(sends: bool, caplog: pytest.LogCaptureFixture) -> None:
    CONF.set_override("send_service_user_token", sends, group="service_user")
    try:
        nova.filter_factory({}, installation_uuid=NOVA)
    finally:
        CONF.clear_override("send_service_user_token", group="service_user")
    assert ("the account in [keystone_authtoken]" in caplog.text) != sends


def test_a_second_installation_is_refused() -> None:
    nova.filter_factory({}, installation_uuid=NOVA)
    with pytest.raises(ConfigurationError, match=f"headers of the installation {NOVA}"):
        nova.filter_factory({}, installation_uuid=OTHER_NOVA)
    with pytest.raises(ConfigurationError, match="use one volume_installation_uuid in all"):
        nova.filter_factory({}, installation_uuid=NOVA, volume_installation_uuid=CINDER)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"installation": NOVA},
        {"installation_uuid": NOVA, "x": ""},
        {"volume_installation_uuid": CINDER},
    ],
)
def test_installation_uuid_is_the_only_necessary_option(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="needs the option installation_uuid"):
        nova.filter_factory({}, **options)


@pytest.mark.parametrize("uuids", [("nova", CINDER), (NOVA, "cinder"), (NOVA, "")])
def test_a_malformed_installation_stops_the_start(uuids: tuple[str, str]) -> None:
    with pytest.raises(TupleMalformed):
        nova.filter_factory({}, installation_uuid=uuids[0], volume_installation_uuid=uuids[1])


@pytest.mark.parametrize("target", TARGETS)
def test_a_function_with_other_arguments_stops_the_start(
    target: PatchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [nova.NOVA.find(other)[2] for other in _all_but(target)]
    owner, name, _ = nova.NOVA.find(target)
    monkeypatch.setattr(owner, name, lambda context, server: None)
    with pytest.raises(
        NovaUnexpected, match=r"Nova \d+.* has (nova|glanceclient)\..*\(context, server\), expected"
    ):
        nova.filter_factory({}, installation_uuid=NOVA)
    assert all(nova.NOVA.find(other)[2] in others for other in _all_but(target))


def _all_but(target: PatchTarget) -> list[PatchTarget]:
    return [other for other in TARGETS if other != target]


def test_the_arguments_of_an_older_version_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    target = nova.PREPARE_SERVERS
    arguments = list(target.arguments)
    # where Nova 31 to 33 have it
    arguments.insert(arguments.index("block_device_mapping") + 1, "shutdown_terminate")
    older = eval(f"lambda {', '.join(arguments)}: []")
    monkeypatch.setattr("nova.compute.api.API._provision_instances", older)
    nova.filter_factory({}, installation_uuid=NOVA)
    assert nova.NOVA.find(target)[2] is not older


def test_a_missing_function_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, _ = nova.NOVA.find(nova.CREATE_IMAGE)
    monkeypatch.delattr(owner, name)
    with pytest.raises(NovaUnexpected, match=r"has no nova\.compute\.utils\.create_image"):
        nova.filter_factory({}, installation_uuid=NOVA)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--installation-uuid"),
        (["--installation-uuid", "nova"], "is not a UUID"),
        (["--installation-uuid", NOVA, "--config-file", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_options_stop_the_conductor(arguments: list[str], message: str) -> None:
    program = "from related_images.integrations.nova_conductor import main; main()"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode != 0
    assert message in ended.stderr
