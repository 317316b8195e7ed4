"""``related-images check`` on the files and the database of this cloud."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from related_images.manage.check import FAULTY
from tests.cloud.cloud import Cloud
from tests.cloud.plan import glance_paste

UWSGI = Path(__file__).parents[2] / "etc" / "samples" / "uwsgi-glance-api.ini"
"""The cloud runs without uWSGI."""
PASTE = "--paste"
GLANCE = "--config-file"
COMPUTE = "--nova-compute-config"


class Fault(NamedTuple):
    """A fault in one file, the check that finds it, and a part of its advice."""

    option: str
    old: str
    new: str
    check: str
    advice: str


def without_tokens(option: str, service: str) -> Fault:
    """Return the fault that a service sends no service token."""
    told = "send_service_user_token = {}".format
    subject = f"{service}: send_service_user_token in [service_user]"
    return Fault(option, told("true"), told("false"), subject, f"set {told('true')}")


def without_filter(option: str, service: str, last: str) -> Fault:
    advice = f"insert related-images before {last}"
    return Fault(option, f" related-images {last}", f" {last}", f"{service}: pipeline", advice)


FAULTS = {
    "no filter in Glance": without_filter(PASTE, "Glance", "rootapp"),
    "the filter before authtoken": Fault(
        PASTE,
        "authtoken context related-images rootapp",
        "related-images authtoken context rootapp",
        "Glance: pipeline `keystone`",
        "move related-images behind context",
    ),
    "an unknown option": Fault(
        PASTE, "guard =", "gaurd =", "Glance: configuration", "has an unknown option 'gaurd'"
    ),
    "no policy file": Fault(
        PASTE,
        "guard =",
        "policy_file = /nowhere.yaml\nguard =",
        "Glance: policy_file in [related_images]",
        "policy_file: /nowhere.yaml does not exist",
    ),
    "no identity": Fault(
        GLANCE,
        "flavor = keystone",
        "",
        "Glance: pipeline `default`",
        "set flavor = keystone in [paste_deploy]",
    ),
    "another role of service tokens": Fault(
        GLANCE,
        "service_token_roles = service",
        "service_token_roles = admin",
        "Glance: service_token_roles in [keystone_authtoken]",
        "add one of recording_roles (service) to service_token_roles",
    ),
    "no filter in nova-api": without_filter(
        "--nova-api-paste", "nova-api", "osapi_compute_app_v21"
    ),
    "no UUID in nova-api": Fault(
        "--nova-api-paste",
        "\ninstallation_uuid =",
        "\nx =",
        "nova-api: installation_uuid of [filter:related-images]",
        "set installation_uuid in [filter:related-images]",
    ),
    "no service token of nova-api": without_tokens("--nova-api-config", "nova-api"),
    "no service token of nova-compute": without_tokens(COMPUTE, "nova-compute"),
    "no block devices in notifications": Fault(
        COMPUTE,
        "bdms_in_notifications = true",
        "",
        "nova-compute: bdms_in_notifications in [notifications]",
        "set bdms_in_notifications = true in [notifications]",
    ),
    "notifications of the old format": Fault(
        COMPUTE,
        "notification_format = versioned",
        "notification_format = unversioned",
        "nova-compute: notification_format in [notifications]",
        "set notification_format = versioned",
    ),
    "another topic": Fault(
        COMPUTE,
        "versioned_notifications_topics =",
        "versioned_notifications_topics = others\n#",
        "nova-compute: versioned_notifications_topics in [notifications]",
        "add versioned_notifications to versioned_notifications_topics",
    ),
    "no driver of notifications": Fault(
        COMPUTE,
        "driver = messagingv2",
        "driver = noop",
        "nova-compute: driver in [oslo_messaging_notifications]",
        "set driver = messagingv2 in [oslo_messaging_notifications]",
    ),
    "no filter in cinder-api": without_filter("--cinder-api-paste", "cinder-api", "apiv3"),
    "no service token of Cinder": without_tokens("--cinder-config", "cinder"),
    "a small buffer of uWSGI": Fault(
        "--uwsgi", "buffer-size = 65535", "", "buffer-size", "set buffer-size = 65535"
    ),
    "no master of uWSGI": Fault("--uwsgi", "master = true", "", "master", "set master = true"),
    "no hooks after a fork": Fault(
        "--uwsgi",
        "py-call-osafterfork = true",
        "",
        "py-call-osafterfork",
        "set py-call-osafterfork = true",
    ),
}
Found = tuple[int, list[tuple[str, str]]]
"""The exit code, and the subject and the advice of each check that found a fault."""


@pytest.fixture(scope="module")
def files(cloud: Cloud) -> dict[str, Path]:
    """The files of the services, by the options of ``check``."""
    home = cloud.plan.home
    return {
        PASTE: glance_paste(cloud.plan),
        GLANCE: home("glance") / "glance-api.conf",
        "--nova-api-paste": home("nova") / "api-paste.ini",
        "--nova-api-config": home("nova") / "nova.conf",
        "--nova-conductor-config": home("nova") / "nova.conf",
        COMPUTE: home(cloud.plan.first.compute) / "nova.conf",
        "--cinder-api-paste": home("cinder") / "api-paste.ini",
        "--cinder-config": home("cinder") / "cinder.conf",
        "--uwsgi": UWSGI,
    }


def check(cloud: Cloud, files: dict[str, Path]) -> Found:
    words = [str(word) for pair in files.items() for word in pair]
    done = cloud.command("related-images", "check", *words, "-f", "json")
    found = json.loads(done.stdout)
    assert {one["result"] for one in found} <= {"ok", "wrong"}
    assert len(found) > 20
    wrong = [(one["check"], one["next_step"]) for one in found if one["result"] == "wrong"]
    return done.returncode, wrong


def test_check_finds_no_fault_in_this_cloud(cloud: Cloud, files: dict[str, Path]) -> None:
    assert check(cloud, files) == (0, [])


@pytest.mark.parametrize("seeded", FAULTS)
def test_check_finds_a_seeded_fault(
    cloud: Cloud, files: dict[str, Path], seeded: str, tmp_path: Path
) -> None:
    fault = FAULTS[seeded]
    text = files[fault.option].read_text()
    assert fault.old in text
    changed = tmp_path / files[fault.option].name
    changed.write_text(text.replace(fault.old, fault.new))
    code, wrong = check(cloud, {**files, fault.option: changed})
    assert code == FAULTY
    # a service may have several pipelines; the database of a faulty configuration is not checked
    _, first = wrong[0]
    for subject, advice in wrong:
        assert fault.check in subject or (subject, advice) == ("database", first)
        assert fault.advice in advice


@pytest.fixture
def registered(cloud: Cloud) -> Iterator[Callable[..., str]]:
    """A function that registers a new installation, which is removed after the test."""
    database = (PASTE, str(glance_paste(cloud.plan)))
    uuids = list[str]()

    def register(*words: str) -> str:
        made = cloud.command("related-images", "generate-installation-uuid").stdout.strip()
        uuids.append(made)
        done = cloud.command("related-images", "installation", "add", made, *words, *database)
        assert done.returncode == 0, done.stderr
        return made

    yield register
    for uuid in uuids:
        cloud.command("related-images", "installation", "remove", uuid, *database)


def test_check_finds_a_witness_that_never_spoke(
    cloud: Cloud, files: dict[str, Path], registered: Callable[..., str]
) -> None:
    uuid = registered("--name", "silent", "--witness", "nova-bus")
    code, ((subject, advice),) = check(cloud, files)
    assert (code, subject) == (FAULTY, f"witness: nova-bus of {uuid}")
    assert "it has never reported" in advice
