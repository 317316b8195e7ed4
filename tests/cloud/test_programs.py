"""``related-images`` and the ``openstack`` command, with the real Keystone."""

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.plan import INSTALLATION, REGION, glance_paste
from tests.cloud.starting import glance_beside
from tests.cloud.user_actions import CreatedServers
from tests.servers import ask


def in_words(cloud: Cloud, who: str) -> dict[str, str]:
    """Return the OS_* variables of a user."""
    named = {f"OS_{key.upper()}": text for key, text in cloud.plan.user(who).items()}
    return {**named, "OS_REGION_NAME": REGION, "OS_IDENTITY_API_VERSION": "3"}


def on_database(cloud: Cloud) -> tuple[str, str]:
    return "--paste", str(glance_paste(cloud.plan))


@pytest.fixture(scope="module")
def deleted_unseen(cloud: Cloud) -> str:
    """Create an image with a relation, delete it in a Glance without the filter; return its ID."""
    headers = {
        "X-Auth-Token": cloud.token("alice"),
        "X-Service-Token": cloud.token("nova"),
        "X-Installation-UUID": INSTALLATION,
        "X-Instance-ID": str(uuid4()),
    }
    image = {"name": "deleted unseen", "disk_format": "raw", "container_format": "bare"}
    made = cloud.glance("POST", "/v2/images", headers, image)
    assert made.status == 201, made.body
    image_id = str(made.json["id"])
    token = {"X-Auth-Token": cloud.token("admin")}
    with glance_beside(cloud, "plain", with_filter=False) as port:
        assert ask(port, "DELETE", f"/v2/images/{image_id}", token).status == 204
    return image_id


def reconcile(cloud: Cloud, *words: str, **environment: str) -> dict[str, Any]:
    how = ("--older-than", "0h", "--rate", "1000", *on_database(cloud))
    done = cloud.command("related-images", "reconcile", *how, *words, **environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def deleted_at(cloud: Cloud, image_id: str) -> object:
    token = {"X-Auth-Token": cloud.token("admin")}
    (row,) = cloud.glance("GET", f"/v2/images/{image_id}/relations", token).json["relations"]
    return row["image_deleted_at"]


def test_reconcile_finds_what_was_deleted_unseen(cloud: Cloud, deleted_unseen: str) -> None:
    told = reconcile(cloud, "--dry-run", **in_words(cloud, "admin"))
    assert (told["dry_run"], told["marked_deleted"]) == (True, 1)
    assert deleted_at(cloud, deleted_unseen) is None
    assert reconcile(cloud, "--os-cloud", "admin")["marked_deleted"] == 1
    assert deleted_at(cloud, deleted_unseen) is not None
    assert reconcile(cloud, "--os-cloud", "admin")["marked_deleted"] == 0


def test_an_ordinary_user_cannot_reconcile(cloud: Cloud) -> None:
    words = ("reconcile", "--os-cloud", "alice", *on_database(cloud))
    done = cloud.command("related-images", *words)
    assert done.returncode == 1
    assert "use an account with the admin role" in done.stderr


def test_a_project_is_found_by_its_name(cloud: Cloud, created: CreatedServers) -> None:
    demo = cloud.connection("admin").identity.find_project("demo").id

    def listed(who: str, project: str) -> set[str]:
        rows = cloud.shown(who, "image", "relation", "list", "--project", project)
        return {row["Image ID"] for row in rows}

    found = listed("admin", "demo")
    assert created.images["backup 4"] in found
    assert created.images["snapshot by an administrator"] not in found
    assert found == listed("admin", demo) == listed("alice", "demo")
    # bob may not look up projects in Keystone, and may not see the relations of demo
    assert listed("bob", demo) == set()
    words = ("image", "relation", "list", "--project", "demo")
    done = cloud.command("openstack", *words, OS_CLOUD="bob")
    assert done.returncode == 1
    assert "give the project's ID" in done.stderr


def test_a_project_that_keystone_does_not_know(cloud: Cloud) -> None:
    words = ("image", "relation", "list", "--project", "nobody")
    done = cloud.command("openstack", *words, OS_CLOUD="admin")
    assert done.returncode == 1
    assert "no project with the name or ID 'nobody'" in done.stderr


def test_backfill_believes_neither_what_is_forged_nor_what_nova_does_not_know(
    cloud: Cloud, created: CreatedServers
) -> None:
    words = ("--installation", INSTALLATION, "--ask-nova", "--dry-run", "-f", "json")
    where = ("--os-cloud", "admin", *on_database(cloud))
    done = cloud.command("related-images", "backfill", *words, *where)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    doubted = {row["image_id"]: row["reason"] for row in told["doubted"]}
    assert created.images["snapshot with forged metadata"] in doubted
    assert not set(doubted) & {created.images[f"backup {number}"] for number in (2, 3, 4)}
    assert told["counts"]["known"] >= 5
