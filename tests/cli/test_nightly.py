"""The nightly scheduler of the docs, with an image of each awkward state in the way."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import create_engine, text, update

from related_images.store.refs import image_ref
from related_images.store.tables import image, relation
from tests.cli.running import OPENSTACK, Instance
from tests.servers import PATIENCE

DOCS = Path(__file__).parent.parent.parent / "docs/backups.md"

STAND_IN = """\
#!{python}
# In place of Nova, which makes the image of a backup; the rest is the real program.
import os, subprocess, sys
arguments = sys.argv[1:]
if arguments[:3] == ["server", "backup", "create"]:
    with open({noted!r}, "a") as file:
        print(arguments[-1], file=file)
    sys.exit(0)
os.execv({openstack!r}, [{openstack!r}, *{identity!r}, *arguments])
"""


def script() -> str:
    (found,) = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return str(found)


def age(instance: Instance, days: dict[str, float]) -> None:
    """Put back when images were made and recorded: nobody can ask for that."""
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
            recorded = update(relation).where(relation.c.image_ref == image_ref(image_id))
            assert ours.execute(recorded.values(created_at=made)).rowcount == 1
            known = update(image).where(image.c.uuid == image_id)
            ours.execute(known.values(created_at=made.replace(microsecond=0)))


def set_true(instance: Instance, image_id: str, name: str) -> None:
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    body = f'[{{"op": "replace", "path": "/{name}", "value": true}}]'.encode()
    path = f"/v2/images/{image_id}"
    assert instance.glance.request("PATCH", path, instance.member, patch, body).status == 200


def run(instance: Instance, directory: Path) -> tuple[str, list[str]]:
    """Run the script; gives what it complains of and whom Nova was asked to back up."""
    noted, program = directory / "noted", directory / "openstack"
    noted.touch()
    identity = ["--os-auth-type", "admin_token", "--os-token", instance.member]
    identity += ["--os-endpoint", instance.glance.url]
    program.write_text(
        STAND_IN.format(
            python=sys.executable, noted=str(noted), openstack=str(OPENSTACK), identity=identity
        )
    )
    program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
    environment["PATH"] = f"{directory}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script(), "nightly-backup", instance.project],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr, noted.read_text().split()


def test_the_night_of_the_docs(instance: Instance, tmp_path: Path) -> None:
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
    complaints, asked = run(instance, tmp_path)
    assert (complaints, asked) == ("", [instance.id])

    def is_there(image_id: str) -> bool:
        path = f"/v2/images/{image_id}"
        return instance.glance.request("GET", path, instance.member).status == 200

    assert all(map(is_there, [*stay, queued]))
    left = [number for image_id, number in ages.items() if is_there(image_id)]
    assert left[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert left[-1] == 12  # the oldest, while there are not twelve months
    assert len(left) < 12
