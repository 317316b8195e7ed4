"""Images that reuse an ID, and images that get another owner."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.filters import new_uuid
from tests.guarantees.reconciling import ADMIN, INSTALLATION, NOW, Reconciler
from tests.servers import PATIENCE, Answer, ServedGlance

SERVICE = "nova:service:service"
VICTIM, THIEF = "alice:victim:member", "eve:thief:member"
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


@pytest.fixture
def reconciler(served: ServedGlance, capsys: pytest.CaptureFixture[str]) -> Reconciler:
    url = f"sqlite:///{served.directory}/related-images.db"
    return Reconciler(url, served.url, capsys)


@pytest.fixture
def instance() -> str:
    return new_uuid()


def instance_headers(instance: str, kind: str = "backup") -> dict[str, str]:
    return {
        "X-Installation-UUID": INSTALLATION,
        "X-Instance-ID": instance,
        "X-Relation-Kind": kind,
        "X-Instance-Project-ID": "victim",
        "X-Service-Token": SERVICE,
    }


def create(served: ServedGlance, user: str, headers: dict[str, str], **fields: Any) -> Answer:
    body = {"name": "n", "disk_format": "raw", "container_format": "bare", **fields}
    return served.request("POST", "/v2/images", user, headers, body)


def backup(served: ServedGlance, instance: str, **fields: Any) -> str:
    answer = create(served, VICTIM, instance_headers(instance), **fields)
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def delete(served: ServedGlance, image_id: str) -> None:
    assert served.request("DELETE", f"/v2/images/{image_id}", ADMIN).status == 204


def forget(served: ServedGlance, image_id: str) -> None:
    delete(served, image_id)
    served.purge(image_id)


def steal(served: ServedGlance, image_id: str) -> None:
    """Create a public image with the ID in another project."""
    time.sleep(1.1)  # Glance reports creation times in seconds
    answer = create(served, THIEF, {}, id=image_id, visibility="community")
    assert answer.status == 201, answer.body


def listed(served: ServedGlance, user: str, instance: str, **query: str) -> list[str]:
    asked = {
        "installation_uuid": INSTALLATION,
        "instance_id": instance,
        "relation_kind": "backup",
        "visibility": "all",
        **query,
    }
    answer = served.request("GET", f"/v2/images?{urlencode(asked)}", user)
    assert answer.status == 200, answer.body
    return [image["id"] for image in answer.json["images"]]


def relations(served: ServedGlance, user: str, image_id: str) -> list[dict[str, Any]]:
    answer = served.request("GET", f"/v2/relations?image_id={image_id}", user)
    found: list[dict[str, Any]] = answer.json["relations"]
    return found


@pytest.mark.parametrize("lose", [forget, ServedGlance.purge])
@pytest.mark.parametrize("user", [VICTIM, ADMIN])
def test_an_image_with_a_used_id_is_not_the_former_backup(
    served: ServedGlance,
    reconciler: Reconciler,
    instance: str,
    lose: Callable[[ServedGlance, str], None],
    user: str,
) -> None:
    image_id, kept = backup(served, instance), backup(served, instance)
    lose(served, image_id)
    steal(served, image_id)
    for _ in range(2):
        assert listed(served, user, instance) == [kept]
        assert listed(served, user, instance, limit="1", sort="created_at:desc") == [kept]
        reconciler.run(*NOW)
        (row,) = relations(served, user, image_id)
        assert row["image_deleted_at"] is not None
    assert relations(served, THIEF, image_id) == []
    path = f"/v2/instances/{INSTALLATION}/{instance}"
    assert served.request("GET", path, user).json["images"]["backup"]["count"] == 1
    delete(served, image_id)


def test_an_image_is_not_restored_for_another_owner_within_the_same_second(
    served: ServedGlance, reconciler: Reconciler, instance: str
) -> None:
    image_id, kept = backup(served, instance), backup(served, instance)
    at = relations(served, VICTIM, image_id)[0]["image_created_at"]
    forget(served, image_id)
    answer = create(served, THIEF, {}, id=image_id, visibility="community")
    assert answer.status == 201
    with closing(sqlite3.connect(served.directory / "glance.db", PATIENCE)) as glance, glance:
        moment = at.removesuffix("Z").replace("T", " ")
        glance.execute("UPDATE images SET created_at = ? WHERE id = ?", (moment, image_id))
    assert reconciler.run(*NOW)["restored"] == 0
    assert listed(served, VICTIM, instance) == [kept]
    delete(served, image_id)


def test_a_used_id_does_not_restore_the_relations_of_the_former_image(
    served: ServedGlance, reconciler: Reconciler, instance: str
) -> None:
    image_id, other = backup(served, instance), new_uuid()
    forget(served, image_id)
    time.sleep(1.1)
    answer = create(served, THIEF, instance_headers(other), id=image_id)
    assert (answer.status, answer.headers["X-Relation-Recorded"]) == (201, "backup")
    for _ in range(2):
        new, old = relations(served, ADMIN, image_id)
        assert (new["instance_id"], new["image_deleted_at"]) == (other, None)
        assert (old["instance_id"], old["image_deleted_at"] is None) == (instance, False)
        assert new["image_created_at"] > old["image_created_at"]
        assert [row["instance_id"] for row in relations(served, VICTIM, image_id)] == [instance]
        assert [row["instance_id"] for row in relations(served, THIEF, image_id)] == [other]
        assert listed(served, VICTIM, instance) == []
        assert listed(served, THIEF, other) == [image_id]
        reconciler.run(*NOW)
    of_image = served.request("GET", f"/v2/images/{image_id}/relations?limit=1", ADMIN).json
    rest = served.request("GET", of_image["next"], ADMIN).json
    assert [row["instance_id"] for row in rest["relations"]] == [instance]
    assert served.request("DELETE", old["self"], SERVICE).status == 204
    assert [row["instance_id"] for row in relations(served, ADMIN, image_id)] == [other]
    delete(served, image_id)


def test_a_used_id_is_another_image_although_the_filter_missed_the_deletion(
    served: ServedGlance, instance: str
) -> None:
    image_id, other = backup(served, instance), new_uuid()
    served.purge(image_id)
    time.sleep(1.1)
    assert create(served, THIEF, instance_headers(other), id=image_id).status == 201
    new, old = relations(served, ADMIN, image_id)
    assert (new["instance_id"], new["image_deleted_at"]) == (other, None)
    assert (old["instance_id"], old["image_deleted_at"] is None) == (instance, False)
    assert listed(served, ADMIN, instance) == []
    delete(served, image_id)


def test_an_id_of_an_existing_image_changes_nothing(served: ServedGlance, instance: str) -> None:
    image_id = backup(served, instance)
    delete(served, image_id)
    before = relations(served, ADMIN, image_id)
    assert create(served, VICTIM, instance_headers(new_uuid()), id=image_id).status == 409
    assert relations(served, ADMIN, image_id) == before


def attach(served: ServedGlance, image_id: str, instance: str, kind: str = "backup") -> Answer:
    body = {
        "installation_uuid": INSTALLATION,
        "instance_id": instance,
        "image_id": image_id,
        "kind": kind,
    }
    return served.request("POST", "/v2/relations", "nova:service:service,admin", {}, body)


@pytest.mark.parametrize("lose", [forget, ServedGlance.purge])
@pytest.mark.parametrize("kind", ["backup", "boot"])
def test_attaching_an_image_with_a_used_id_ignores_the_former_image(
    served: ServedGlance, instance: str, lose: Callable[[ServedGlance, str], None], kind: str
) -> None:
    image_id, other = backup(served, instance), new_uuid()
    lose(served, image_id)
    steal(served, image_id)
    first, again = attach(served, image_id, other, kind), attach(served, image_id, other, kind)
    assert (first.status, again.status, again.json) == (201, 200, first.json)
    new, old = relations(served, ADMIN, image_id)
    assert (new["instance_id"], new["image_deleted_at"]) == (other, None)
    assert (old["instance_id"], old["image_deleted_at"] is None) == (instance, False)
    assert listed(served, ADMIN, instance) == []
    delete(served, image_id)


def test_reconcile_records_a_missing_creation_time(
    served: ServedGlance, reconciler: Reconciler, instance: str
) -> None:
    image_id = backup(served, instance)
    (row,) = relations(served, VICTIM, image_id)
    shown = served.request("GET", f"/v2/images/{image_id}", VICTIM).json["created_at"]
    assert row["image_created_at"] == shown.replace("Z", ".000000Z")
    with closing(sqlite3.connect(served.directory / "related-images.db", PATIENCE)) as ours, ours:
        ours.execute("UPDATE related_image SET created_at = 0")
    assert relations(served, VICTIM, image_id)[0]["image_created_at"] is None
    assert listed(served, VICTIM, instance) == [image_id]
    reconciler.run(*NOW)
    assert relations(served, VICTIM, image_id) == [row]


def test_an_image_without_creation_time_is_not_a_later_one_with_its_id(
    served: ServedGlance, reconciler: Reconciler, instance: str
) -> None:
    image_id = backup(served, instance)
    with closing(sqlite3.connect(served.directory / "related-images.db", PATIENCE)) as ours, ours:
        ours.execute("UPDATE related_image SET created_at = 0")
        hour = 3600 * 10**6
        ours.execute("UPDATE related_relation SET created_at = created_at - ?", (hour,))
    served.purge(image_id)
    assert create(served, THIEF, {}, id=image_id, visibility="community").status == 201
    assert listed(served, VICTIM, instance) == []
    reconciler.run(*NOW)
    assert relations(served, VICTIM, image_id)[0]["image_deleted_at"] is not None
    assert listed(served, VICTIM, instance) == []
    delete(served, image_id)


@pytest.mark.parametrize("is_known", [True, False])
def test_an_image_with_a_used_id_keeps_its_relation_without_a_creation_time(
    served: ServedGlance, reconciler: Reconciler, instance: str, is_known: bool
) -> None:
    image_id, other = backup(served, instance), new_uuid()
    with closing(sqlite3.connect(served.directory / "related-images.db", PATIENCE)) as ours, ours:
        hour = 3600 * 10**6
        made_at = f"created_at - {hour}" if is_known else "0"
        ours.execute(f"UPDATE related_image SET created_at = {made_at}")  # noqa: S608
        ours.execute("UPDATE related_relation SET created_at = created_at - ?", (hour,))
    served.purge(image_id)
    # as after a kill of the process that has received Glance's response
    reconciler.announce(image_id, instance=other)
    user = "eve:demo:member"
    assert create(served, user, {}, id=image_id).status == 201
    for _ in range(2):
        reconciler.run(*NOW)
        new, old = relations(served, ADMIN, image_id)
        assert (new["instance_id"], new["image_deleted_at"]) == (other, None)
        assert (old["instance_id"], old["image_deleted_at"] is None) == (instance, False)
        assert listed(served, user, other, relation_kind="snapshot") == [image_id]
        assert listed(served, ADMIN, instance) == []
    path = f"/v2/instances/{INSTALLATION}/{other}"
    assert served.request("GET", path, user).json["images"]["snapshot"]["count"] == 1
    delete(served, image_id)


def move(served: ServedGlance, image_id: str, owner: str) -> None:
    change = [{"op": "replace", "path": "/owner", "value": owner}]
    content = json.dumps(change).encode()
    answer = served.request("PATCH", f"/v2/images/{image_id}", ADMIN, PATCH, content)
    assert answer.status == 200, answer.body


def overdue(served: ServedGlance, user: str, instance: str) -> list[str]:
    """Return the instances without a recent backup, with the query of ``overdue``."""
    asked = {"latest_before": "2020-01-01", "kind": "backup", "instance_id": instance}
    answer = served.request("GET", f"/v2/instances?{urlencode(asked)}", user)
    return [row["instance_id"] for row in answer.json["instances"]]


def test_relations_follow_an_image_to_its_new_owner(
    served: ServedGlance, reconciler: Reconciler, instance: str
) -> None:
    new_owner = "carol:new-owner:member"
    image_id, kept = backup(served, instance), backup(served, instance)
    reconciler.run(*NOW)
    move(served, image_id, "new-owner")
    assert reconciler.run("--dry-run", *NOW)["moved"] == 1
    assert reconciler.run(*NOW)["moved"] == 1
    assert reconciler.run(*NOW)["moved"] == 0
    assert relations(served, VICTIM, image_id) == []
    (row,) = relations(served, new_owner, image_id)
    assert (row["instance_id"], row["project_id"]) == (instance, "new-owner")
    assert listed(served, new_owner, instance) == [image_id]
    assert listed(served, VICTIM, instance) == [kept]
    assert overdue(served, new_owner, instance) == []
    asked = f"/v2/instances?instance_id={instance}"
    for user, owner in ((new_owner, None), (VICTIM, "victim")):
        (one,) = served.request("GET", asked, user).json["instances"]
        assert (one["project_id"], one["images"]["backup"]["count"]) == (owner, 1)


def test_an_attachment_records_the_new_owner(served: ServedGlance, instance: str) -> None:
    image_id = backup(served, instance)
    move(served, image_id, "new-owner")
    assert attach(served, image_id, instance).status == 200
    assert attach(served, image_id, instance, "snapshot").status == 201
    assert relations(served, VICTIM, image_id) == []
    assert len(relations(served, "carol:new-owner:member", image_id)) == 2


def test_the_owner_of_image_and_server_sees_the_link(
    served: ServedGlance, reconciler: Reconciler
) -> None:
    instance, base = new_uuid(), create(served, ADMIN, {}, visibility="public").json["id"]
    assert attach(served, base, instance, "boot").status == 201
    image_id = backup(served, instance)
    path, new_owner = f"/v2/images/{image_id}/ancestry", "carol:new-owner:member"

    def parents(user: str) -> list[str | None]:
        answer = served.request("GET", path, user).json
        return [entry["image_id"] for entry in answer["ancestry"] if entry["image_id"]]

    assert parents(VICTIM) == [base]
    move(served, image_id, "new-owner")
    reconciler.run(*NOW)
    assert parents(new_owner) == []
    move(served, image_id, "victim")
    reconciler.run(*NOW)
    assert parents(VICTIM) == [base]
