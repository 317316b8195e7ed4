"""Loading of the paste filter of nova-api. Its effects are tested in tests/nova."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from nova.conf import CONF

from related_images.errors import ConfigurationError, NovaUnexpected, TupleMalformed
from related_images.integrations import nova

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
TARGETS = (nova.CREATE_IMAGE, nova.SNAPSHOT_VOLUMES, nova.SHELVE, nova.MAKE_CLIENT, nova.MAKE_ERROR)
OTHER_NOVA = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    """Restore Nova's functions after each test."""
    found = [nova._find(target) for target in TARGETS]
    yield
    for owner, name, function in found:
        setattr(owner, name, function)
    nova._installed.clear()


def test_each_pipeline_loads_the_filter() -> None:
    app = object()
    for _ in range(2):
        assert nova.filter_factory({"here": "/"}, installation_uuid=NOVA.upper())(app) is app


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


@pytest.mark.parametrize(
    "options", [{}, {"installation": NOVA}, {"installation_uuid": NOVA, "x": ""}]
)
def test_installation_uuid_is_the_only_option(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="needs the option installation_uuid"):
        nova.filter_factory({}, **options)


def test_a_malformed_installation_stops_the_start() -> None:
    with pytest.raises(TupleMalformed):
        nova.filter_factory({}, installation_uuid="nova")


@pytest.mark.parametrize("target", TARGETS)
def test_a_function_with_other_arguments_stops_the_start(
    target: nova.PatchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [nova._find(other) for other in _all_but(target)]
    owner, name, _ = nova._find(target)
    monkeypatch.setattr(owner, name, lambda context, server: None)
    with pytest.raises(
        NovaUnexpected, match=r"Nova \d+.* has (nova|glanceclient)\..*\(context, server\), expected"
    ):
        nova.filter_factory({}, installation_uuid=NOVA)
    assert [nova._find(other) for other in _all_but(target)] == others


def _all_but(target: nova.PatchTarget) -> list[nova.PatchTarget]:
    return [other for other in TARGETS if other != target]


def test_a_missing_function_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, _ = nova._find(nova.CREATE_IMAGE)
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
