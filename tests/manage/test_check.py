"""``related-images check``: a right deployment, and each seeded fault."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from related_images.db import clock, installations, schema, witnesses
from related_images.db.database import Database
from related_images.manage import check, uwsgi_checks
from related_images.model import Heartbeat
from tests import commands, filters
from tests.db.samples import NOVA

CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
STOCK = Path(sys.prefix) / "etc"
"""Where the wheels of Glance, Nova and Cinder install their paste files."""

GLANCE_CONF = """
[related_images]
connection = {connection}
policy_file = {policy_file}
[paste_deploy]
flavor = keystone
[keystone_authtoken]
service_token_roles = service
"""
POLICY = """
"related_images:relations:create": "rule:related_images:recorder"
"""
SERVICE_USER = """
[service_user]
send_service_user_token = true
auth_type = password
[oslo_messaging_notifications]
driver = messagingv2
topics = cinder_notifications
"""
NOVA_CONF = f"""{SERVICE_USER}
[notifications]
notification_format = versioned
versioned_notifications_topics = versioned_notifications,related_images
bdms_in_notifications = true
"""
UWSGI = """
[uwsgi]
buffer-size = 65535
master = true
enable-threads = true
py-call-osafterfork = true
env = A=1
env = B=%d
"""
NOVA_PASTE = """
[composite:openstack_compute_api_v21]
use = call:nova.api.auth:pipeline_factory_v21
keystone = authtoken keystonecontext related-images osapi_compute_app_v21

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory

[filter:keystonecontext]
paste.filter_factory = nova.api.auth:NovaKeystoneContext.factory
"""
CINDER_PASTE = """
[composite:openstack_volume_api_v3]
use = call:cinder.api.middleware.auth:pipeline_factory
noauth = noauth apiv3
keystone = authtoken keystonecontext related-images apiv3

[filter:noauth]
paste.filter_factory = cinder.api.middleware.auth:NoAuthMiddleware.factory

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory

[filter:keystonecontext]
paste.filter_factory = cinder.api.middleware.auth:CinderKeystoneContext.factory
"""


def filter_section(service: str, uuid: str) -> str:
    return (
        f"[filter:related-images]\ninstallation_uuid = {uuid}\n"
        f"paste.filter_factory = related_images.integrations.{service}:filter_factory\n"
    )


@dataclass
class Deployment:
    """The files of a deployment, and its database."""

    directory: Path
    database: Database

    def file(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, text: str) -> None:
        self.file(name).write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.file(name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def words(self) -> list[str]:
        return [
            *("--paste", str(self.file("glance-api-paste.ini"))),
            *("--config-file", str(self.file("glance-api.conf"))),
            *("--nova-api-paste", str(self.file("nova-paste.ini"))),
            *("--cinder-api-paste", str(self.file("cinder-paste.ini"))),
            *("--nova-api-config", str(self.file("nova-api.conf"))),
            *("--nova-conductor-config", str(self.file("nova-conductor.conf"))),
            *("--nova-compute-config", str(self.file("nova-compute.conf"))),
            *("--cinder-config", str(self.file("cinder.conf"))),
            *("--uwsgi", str(self.file("uwsgi.ini"))),
            *("--topic", "related_images"),
        ]

    def report(self, witness: str, installation: str, ago: timedelta) -> None:
        until = datetime.now(UTC) - ago
        beat = Heartbeat(installation, witness, "1", until - timedelta(hours=1), until)
        witnesses.record(self.database, beat)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("databases")


@pytest.fixture
def deployment(tmp_path: Path, databases: Path) -> Deployment:
    """A deployment without a fault: the paste file of the real Glance, with the filter."""
    sqlite_url = filters.migrated(databases)
    made = Deployment(tmp_path, Database(sqlite_url, 20))
    stock = (STOCK / "glance" / "glance-api-paste.ini").read_text()
    section = "\n[filter:related-images]\nuse = egg:related-images#instance_aware\n"
    made.write("glance-api-paste.ini", stock + section)
    made.replace("glance-api-paste.ini", "authtoken context", "authtoken context related-images")
    made.write("policy.yaml", POLICY)
    options = {"connection": sqlite_url, "policy_file": made.file("policy.yaml")}
    made.write("glance-api.conf", GLANCE_CONF.format(**options))
    made.write("nova-paste.ini", NOVA_PASTE + filter_section("nova", NOVA))
    made.write("cinder-paste.ini", CINDER_PASTE + filter_section("cinder", CINDER))
    for process in check.NOVA_PROCESSES:
        made.write(f"{process}.conf", NOVA_CONF)
    made.write("cinder.conf", SERVICE_USER)
    made.write("uwsgi.ini", UWSGI)
    for uuid, names in ((NOVA, ["nova-api", "nova-bus"]), (CINDER, ["cinder-api"])):
        installations.register(made.database, uuid, uuid, (), names)
        for name in names:
            made.report(name, uuid, timedelta(seconds=1))
    return made


Seed = Callable[[Deployment], None]


def in_file(name: str, old: str, new: str) -> Seed:
    return lambda deployment: deployment.replace(name, old, new)


def behind_the_cache(deployment: Deployment) -> None:
    wrong = "cache related-images rootapp"
    deployment.replace(GLANCE_PASTE, "related-images cache rootapp", wrong)
    deployment.replace("glance-api.conf", "flavor = keystone", "flavor = keystone+caching")


def expecting_a_silent_witness(deployment: Deployment) -> None:
    installations.unregister(deployment.database, CINDER)
    installations.register(deployment.database, CINDER, CINDER, (), ["cinder-bus"])


GLANCE_PASTE = "glance-api-paste.ini"
FAULTS: dict[str, tuple[Seed, str, str]] = {
    "no filter in Glance": (
        in_file(GLANCE_PASTE, "context related-images rootapp", "context rootapp"),
        "Glance: pipeline `keystone`",
        "insert related-images before rootapp",
    ),
    "filter before the context": (
        in_file(GLANCE_PASTE, "authtoken context related", "related-images authtoken context x"),
        "Glance: pipeline `keystone`",
        "move related-images behind context",
    ),
    "filter behind the cache": (
        behind_the_cache,
        "Glance: pipeline `keystone+caching`",
        "move related-images before cache",
    ),
    "no identity": (
        in_file("glance-api.conf", "flavor = keystone", ""),
        "Glance: pipeline `default`",
        "set flavor = keystone",
    ),
    "an unknown option": (
        in_file("glance-api.conf", "[related_images]", "[related_images]\ngaurd = in-use"),
        "Glance: configuration",
        "unknown option 'gaurd'",
    ),
    "an unknown option in the paste file": (
        in_file(GLANCE_PASTE, "#instance_aware", "#instance_aware\ngaurd = in-use"),
        "Glance: configuration",
        "[filter:related-images] has an unknown option 'gaurd'",
    ),
    "an unknown rule": (
        in_file("policy.yaml", "relations:create", "relation:create"),
        "Glance: policy_file",
        "the closest known rule is related_images:relations:create",
    ),
    "a wrong expression of a rule": (
        in_file("policy.yaml", "rule:related_images:recorder", "role:service or or"),
        "Glance: policy_file",
        "policy.yaml: the rule 'related_images:relations:create' is wrong",
    ),
    "a policy file that is not YAML": (
        in_file("policy.yaml", ": ", " = "),
        "Glance: policy_file",
        "policy.yaml cannot be read as YAML",
    ),
    "no such policy file": (
        lambda it: it.file("policy.yaml").unlink(),
        "Glance: policy_file",
        "policy.yaml does not exist",
    ),
    "a policy file in the paste file": (
        in_file(GLANCE_PASTE, "#instance_aware", "#instance_aware\npolicy_file = /nowhere.yaml"),
        "Glance: policy_file",
        "policy_file: /nowhere.yaml does not exist",
    ),
    "other roles of service tokens": (
        in_file("glance-api.conf", "service_token_roles = service", "service_token_roles = admin"),
        "Glance: service_token_roles",
        "add one of recording_roles (service) to service_token_roles",
    ),
    "no filter in nova-api": (
        in_file("nova-paste.ini", "keystonecontext related-images", "keystonecontext"),
        "nova-api: pipeline",
        "insert related-images before osapi_compute_app_v21",
    ),
    "no UUID in nova-api": (
        in_file("nova-paste.ini", f"installation_uuid = {NOVA}", "x = 1"),
        "nova-api: installation_uuid",
        "generate-installation-uuid",
    ),
    "no service token of nova-api": (
        in_file("nova-api.conf", "send_service_user_token = true", ""),
        "nova-api: send_service_user_token",
        "set send_service_user_token = true in [service_user]",
    ),
    "no service token of nova-compute": (
        in_file("nova-compute.conf", "send_service_user_token = true", ""),
        "nova-compute: send_service_user_token",
        "set send_service_user_token = true in [service_user]",
    ),
    "no account of cinder": (
        in_file("cinder.conf", "auth_type = password", ""),
        "cinder: auth_type",
        "set auth_type",
    ),
    "no block devices in notifications": (
        in_file("nova-compute.conf", "bdms_in_notifications = true", ""),
        "nova-compute: bdms_in_notifications",
        "set bdms_in_notifications = true",
    ),
    "no driver of notifications": (
        in_file("nova-conductor.conf", "driver = messagingv2", "driver = noop"),
        "nova-conductor: driver",
        "set driver = messagingv2",
    ),
    "old notifications": (
        in_file("nova-compute.conf", "notification_format = versioned", ""),
        "nova-compute: notification_format",
        "set notification_format = versioned",
    ),
    "another topic": (
        in_file("nova-compute.conf", ",related_images", ""),
        "nova-compute: versioned_notifications_topics",
        "add related_images to versioned_notifications_topics",
    ),
    "another topic of Cinder": (
        in_file("cinder.conf", "topics = cinder_notifications", ""),
        "cinder: topics",
        "add cinder_notifications to topics",
    ),
    "no filter in cinder-api": (
        in_file("cinder-paste.ini", "keystonecontext related-images", "keystonecontext"),
        "cinder-api: pipeline",
        "insert related-images before apiv3",
    ),
    "an old schema": (
        lambda it: schema.downgrade(it.database._url.render_as_string(), schema.REVISIONS[-2]),
        "database: schema",
        "db upgrade",
    ),
    "no such database": (
        in_file("glance-api.conf", "sqlite:///", "sqlite:////nowhere"),
        "database",
        "the file does not exist",
    ),
    "an installation that is not registered": (
        lambda it: installations.unregister(it.database, CINDER),
        f"installation: {CINDER}",
        f"related-images installation add {CINDER}",
    ),
    "a witness that never spoke": (
        expecting_a_silent_witness,
        f"witness: cinder-bus of {CINDER}",
        "it has never reported; start `related-images listen`",
    ),
    "a small buffer": (
        in_file("uwsgi.ini", "buffer-size = 65535", "buffer-size = 4096"),
        "buffer-size",
        f"set buffer-size = {uwsgi_checks.ADVISED_BUFFER}",
    ),
    "no master": (in_file("uwsgi.ini", "master = true", ""), "master", "set master = true"),
    "no threads": (
        in_file("uwsgi.ini", "enable-threads = true", ""),
        "enable-threads",
        "set enable-threads = true",
    ),
    "no hooks of a fork": (
        in_file("uwsgi.ini", "py-call-osafterfork = true", "py-call-osafterfork = false"),
        "py-call-osafterfork",
        "set py-call-osafterfork = true",
    ),
}


def findings(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> tuple[int, list[dict[str, str]]]:
    code = commands.run("check", *words, "-f", "json")
    return code, json.loads(capsys.readouterr().out)


def wrong(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["check"], one["next_step"]) for one in found if one["result"] == "wrong"]


def test_a_right_deployment_has_no_fault(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = findings(capsys, deployment.words())
    assert (code, wrong(found)) == (0, [])
    assert {one["result"] for one in found} == {"ok"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_with_the_setting_to_change(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    seed, subject, advice = FAULTS[fault]
    seed(deployment)
    code, found = findings(capsys, deployment.words())
    assert code == check.FAULTY
    (where, said), *others = wrong(found)
    assert subject in where
    assert advice in said
    # a faulty configuration hides the database
    assert others in ([], [("database", said)])


def test_a_clock_that_differs_is_found(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda it: now(it) - timedelta(minutes=1))
    code, found = findings(capsys, deployment.words())
    assert code == check.FAULTY
    (advice,) = [advice for subject, advice in wrong(found) if subject == "database: clock"]
    assert "differ by 60 s" in advice


def test_a_silent_witness_is_found(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda it: now(it) + timedelta(minutes=10))
    _, found = findings(capsys, deployment.words())
    silent = [(subject, advice) for subject, advice in wrong(found) if "witness" in subject]
    assert len(silent) == 3
    assert all("it has not reported since" in advice for _, advice in silent)


def test_what_is_not_given_is_not_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = findings(capsys, [])
    assert code == 0
    assert {one["result"] for one in found} == {"not checked"}
    assert len(found) == 10
    assert all(one["next_step"].startswith("give --") for one in found)


@pytest.mark.parametrize("name", ["nova-paste.ini", "uwsgi.ini", "nova-api.conf", GLANCE_PASTE])
@pytest.mark.parametrize("content", [None, b"\xff", b"[", b"password = secret\nx"])
def test_a_file_that_cannot_be_read_is_a_fault_and_no_value_is_shown(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    path = deployment.file(name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    code, found = findings(capsys, deployment.words())
    assert code == check.FAULTY
    assert any(str(path) in subject + advice for subject, advice in wrong(found))
    assert "secret" not in json.dumps(found)


def test_the_stock_files_of_the_services_lack_the_filter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("nova", reason="Nova is not installed")
    words = ["--nova-api-paste", str(STOCK / "nova" / "api-paste.ini")]
    if (cinder := STOCK / "cinder" / "api-paste.ini").exists():
        words += ["--cinder-api-paste", str(cinder)]
    code, found = findings(capsys, words)
    assert code == check.FAULTY
    assert all("insert related-images before" in advice for _, advice in wrong(found))
    # both pipelines of each service
    assert len(wrong(found)) == len(words)
