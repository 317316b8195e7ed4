"""The nightly script of the docs, with an image in each state that the rules skip."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text, update

from related_images.db import latest_images
from related_images.db.row_ids import image_ref
from related_images.db.tables import image, relation
from tests.osc.running import OPENSTACK, Instance
from tests.servers import PATIENCE

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent.parent / "docs/backups.md"

STAND_IN = """\
#!{python}
# In place of Nova, which makes the image of a backup; the rest is the real program.
import os, subprocess, sys
arguments = sys.argv[1:]
if arguments[:3] == ["server", "backup", "create"]:
    with open({noted!r}, "a") as file:
        print(arguments[-1], file=file)
    if arguments[-1] in {refused!r}:
        sys.exit("Backup is not supported for volume-backed instances. (HTTP 400)")
    sys.exit(0)
identity = {overdue!r} if arguments[2] == "overdue" else {identity!r}
os.execv({openstack!r}, [{openstack!r}, *identity, *arguments])
"""


@dataclass(frozen=True)
class Night:
    """The exit code of the script, its errors, and the servers that Nova was to back up."""

    code: int
    errors: str
    asked: list[str]


def script() -> str:
    (found,) = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return str(found)


def age(instance: Instance, days: dict[str, float]) -> None:
    """Set the times of images and relations in the databases: no API can."""
    home = instance.glance.directory
    with (
        create_engine(f"sqlite:///{home}/glance.db").begin() as glance,
        create_engine(f"sqlite:///{home}/related-images.db").begin() as ours,
    ):
        for image_id, number in days.items():
            made = datetime.now(UTC) - timedelta(days=number)
            naive = made.replace(tzinfo=None).isoformat(" ")
            changed = text("UPDATE images SET created_at=:at WHERE id=:id")
            assert glance.execute(changed, {"at": naive, "id": image_id}).rowcount == 1
            # Glance returns times of images in whole seconds
            learned = update(image).where(image.c.uuid == image_id)
            ours.execute(learned.values(created_at=made.replace(microsecond=0)))
            is_recorded = relation.c.image_ref == image_ref(image_id)
            recorded = update(relation).where(is_recorded)
            assert ours.execute(recorded.values(created_at=made)).rowcount == 1
            known = update(image).where(image.c.uuid == image_id)
            ours.execute(known.values(created_at=made.replace(microsecond=0)))
            refs = ours.execute(select(relation.c.instance_ref).where(is_recorded)).scalars()
            latest_images.refresh(ours, refs.all())


def set_true(instance: Instance, image_id: str, name: str) -> None:
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    body = f'[{{"op": "replace", "path": "/{name}", "value": true}}]'.encode()
    path = f"/v2/images/{image_id}"
    assert instance.glance.request("PATCH", path, instance.member, patch, body).status == 200


def identity_at(instance: Instance, url: str) -> list[str]:
    said = ["--os-auth-type", "admin_token", "--os-token", instance.member]
    return [*said, "--os-endpoint", url]


def run(
    instance: Instance,
    directory: Path,
    *,
    project: str | None = None,
    overdue: list[str] | None = None,
    refused: tuple[str, ...] = (),
) -> Night:
    """Run the script.

    :param overdue: the credentials of ``overdue``, if they differ from those of other commands
    :param refused: the servers for which Nova refuses a backup
    """
    noted, program = directory / "noted", directory / "openstack"
    noted.write_text("")
    identity = identity_at(instance, instance.glance.url)
    program.write_text(
        STAND_IN.format(
            python=sys.executable,
            noted=str(noted),
            openstack=str(OPENSTACK),
            identity=identity,
            overdue=overdue or identity,
            refused=refused,
        )
    )
    program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
    environment["PATH"] = f"{directory}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script(), "nightly-backup", project or instance.project],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert bool(done.returncode) == bool(done.stderr)
    return Night(done.returncode, done.stderr, noted.read_text().split())


def is_there(instance: Instance, image_id: str) -> bool:
    path = f"/v2/images/{image_id}"
    return instance.glance.request("GET", path, instance.member).status == 200


def test_the_nightly_script_of_the_docs(instance: Instance, tmp_path: Path) -> None:
    def backup(name: str, **told: str) -> str:
        return instance.image(name, kind="backup", label="daily", **told)

    ages = {instance.fill(backup(f"day-{number}")): number + 1.0 for number in range(12)}
    queued = backup("queued")
    protected, hidden = instance.fill(backup("protected")), instance.fill(backup("hidden"))
    snapshot = instance.fill(instance.image("snapshot"))
    weekly = instance.fill(instance.image("weekly", kind="backup", label="weekly"))
    stay = {protected: 100.0, hidden: 100.5, snapshot: 100.0, weekly: 100.0}
    age(instance, ages | stay | {queued: 0.1})
    set_true(instance, protected, "protected")
    set_true(instance, hidden, "os_hidden")
    assert run(instance, tmp_path) == Night(0, "", [instance.id])
    assert all(is_there(instance, image_id) for image_id in [*stay, queued])
    left = [number for image_id, number in ages.items() if is_there(instance, image_id)]
    assert left[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert left[-1] == 12  # the oldest, since there are fewer than twelve months
    assert len(left) < 12


@pytest.fixture
def old(instance: Instance) -> list[str]:
    """Three daily backups of one day; the rules keep two."""
    made = [instance.fill(instance.image(f"{n}", kind="backup", label="daily")) for n in range(3)]
    now = datetime.now(UTC)
    noon = (now - now.replace(hour=12, minute=0)) / timedelta(days=1) + 40
    age(instance, dict(zip(made, (noon, noon + 0.1, noon + 0.2), strict=True)))
    return made


def test_the_rules_keep_old_backups(instance: Instance, old: list[str], tmp_path: Path) -> None:
    assert run(instance, tmp_path).code == 0
    assert [is_there(instance, image_id) for image_id in old] == [True, False, True]


@pytest.mark.parametrize(
    "overdue",
    [
        [
            "--os-auth-type",
            "admin_token",
            "--os-token",
            "a:b:c",
            "--os-endpoint",
            "http://127.0.0.1:9",
        ],
        ["--os-cloud", "no-such-cloud"],
        ["--no-such-option"],
    ],
    ids=["3", "1", "2"],
)
def test_if_overdue_fails_no_backup_is_created_or_deleted(
    instance: Instance, old: list[str], tmp_path: Path, overdue: list[str]
) -> None:
    night = run(instance, tmp_path, overdue=overdue)
    assert (night.code, night.asked) == (3, [])
    assert "it is not known which servers are overdue" in night.errors
    assert all(is_there(instance, image_id) for image_id in old)


def test_a_project_without_servers_is_a_failure(instance: Instance, tmp_path: Path) -> None:
    night = run(instance, tmp_path, project=f"{instance.project}-misspelt")
    assert (night.code, night.asked) == (3, [])
    assert "nothing was examined" in night.errors


def test_if_a_backup_fails_none_is_deleted(
    instance: Instance, old: list[str], tmp_path: Path
) -> None:
    other = instance.another()
    other.image("queued", kind="backup", label="daily")
    night = run(instance, tmp_path, refused=(instance.id,))
    assert (night.code, sorted(night.asked)) == (1, sorted([instance.id, other.id]))
    assert "1 backups could not be made" in night.errors
    assert all(is_there(instance, image_id) for image_id in old)
