"""Delete protection, with a function in the place of Glance."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from related_images import config
from related_images.db import Database, NewRelation, Reporter
from related_images.db.recording import attach
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.middleware import delete_image, failures
from related_images.middleware.access import Caller
from related_images.middleware.delete_image import Guarded
from related_images.middleware.policy import Policy
from related_images.model import InstanceRef
from related_images.validation import parse_time
from tests import filters, wsgi

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE = "10000000-0000-4000-8000-00000000000a"
OTHER_IMAGE = "10000000-0000-4000-8000-00000000000b"
AT = parse_time("at", "2026-01-31T12:00:00Z")
START = NewRelation(InstanceRef(NOVA, "inst-1"), IMAGE, "boot", None, "service", "demo", AT)
OWNER, STRANGER, ADMIN = (
    wsgi.identity("alice", "demo", "member"),
    wsgi.identity("mallory", "other", "member"),
    wsgi.identity("root", "admin", "admin"),
)
NOBODY: dict[str, str] = {}


@dataclass
class Answering:
    """A Glance that shows the image and answers a deletion with ``status``."""

    status: str = "204 No Content"
    image: Any = field(
        default_factory=lambda: {"id": IMAGE, "owner": "demo", "created_at": "2026-01-31T11:00:00Z"}
    )
    shows: str = "200 OK"
    asked: list[str] = field(default_factory=list)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.asked.append(environ["REQUEST_METHOD"])
        if environ["REQUEST_METHOD"] == "DELETE":
            start_response(self.status, [])
            return [b""]
        start_response(self.shows, [("Content-Type", "application/json")])
        return [json.dumps(self.image).encode()]


@pytest.fixture
def database(tmp_path: Path) -> Iterable[Database]:
    opened = Database(filters.migrated(tmp_path), 10)
    yield opened
    opened.close()


def start(database: Database, instance: str = "inst-1") -> None:
    attach(database, replace(START, instance=InstanceRef(NOVA, instance)), Reporter(frozenset()))


def delete(
    database: Database, glance: Answering, who: Mapping[str, str], *, forced: bool = False
) -> int:
    """Send a deletion; return the status of the response."""
    environ = wsgi.environ_of("DELETE", f"/v2/images/{IMAGE}", who)
    settings = config.load("filter:related-images", {"connection": "sqlite://"})
    guarded = Guarded(glance, database, Caller(environ, settings, Policy(settings)), IMAGE, forced)
    return wsgi.run(guarded.delete, environ).status


def is_free(database: Database) -> bool:
    """Whether a ``boot`` of the image can be recorded."""
    try:
        start(database, "later")
    except (ImageBeingDeleted, ImageGone):
        return False
    return True


@pytest.mark.parametrize("who", [OWNER, ADMIN, NOBODY], ids=["owner", "admin", "nobody"])
def test_deletion_of_an_image_in_use_does_not_reach_glance(
    database: Database, who: Mapping[str, str]
) -> None:
    start(database)
    glance = Answering()
    with pytest.raises(ImageInUse):
        delete(database, glance, who)
    assert "DELETE" not in glance.asked
    assert is_free(database)


@pytest.mark.parametrize("who", [OWNER, ADMIN, NOBODY], ids=["owner", "admin", "nobody"])
def test_unused_image_is_deleted_and_marked_deleted(
    database: Database, who: Mapping[str, str]
) -> None:
    assert delete(database, Answering(), who) == 204
    with pytest.raises(ImageGone):
        start(database)


def test_deletion_by_another_project_passes_and_blocks_no_boot(
    database: Database,
) -> None:
    start(database)
    glance = Answering("403 Forbidden")
    assert delete(database, glance, STRANGER) == 403
    assert glance.asked == ["GET", "DELETE"]
    assert is_free(database)


@pytest.mark.parametrize(
    "shown", [{"shows": "503 Service Unavailable"}, {"image": ["no image"]}], ids=["503", "list"]
)
def test_image_stays_protected_if_glance_does_not_return_its_owner(
    database: Database, shown: dict[str, Any]
) -> None:
    start(database)
    with pytest.raises(ImageInUse):
        delete(database, Answering(**shown), STRANGER)


class ListingFails(Answering):
    """A Glance that shows the image and raises when it lists images."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["QUERY_STRING"]:
            raise RuntimeError("a list failed")
        return super().__call__(environ, start_response)


def test_image_stays_protected_if_glance_raises_when_dependents_are_counted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    start(database)
    glance = ListingFails()
    with pytest.raises(ImageInUse) as raised:
        delete(database, glance, OWNER)
    assert raised.value.dependents is None
    assert "DELETE" not in glance.asked
    assert "a list failed" in caplog.text


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "409 Conflict"])
def test_refused_deletion_is_rolled_back(database: Database, status: str) -> None:
    assert delete(database, Answering(status), OWNER) == int(status[:3])
    assert is_free(database)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable"])
def test_deletion_with_unknown_result_stays_recorded(database: Database, status: str) -> None:
    assert delete(database, Answering(status), OWNER) == int(status[:3])
    with pytest.raises(ImageBeingDeleted):
        start(database)


def test_forced_deletion_by_an_admin_is_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    start(database)
    with caplog.at_level(logging.WARNING):
        assert delete(database, Answering(), ADMIN, forced=True) == 204
    (line,) = caplog.messages
    assert f"deletion of image {IMAGE} is forced by user root of project admin" in line
    assert "1 live resources use it" in line


def test_forced_deletion_of_an_unused_image_is_not_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    assert delete(database, Answering(), ADMIN, forced=True) == 204
    assert caplog.messages == []


@pytest.mark.parametrize("who", [OWNER, NOBODY], ids=["owner", "nobody"])
def test_only_admins_force_a_deletion_and_the_message_names_the_roles(
    database: Database, who: Mapping[str, str]
) -> None:
    start(database)
    glance = Answering()
    with pytest.raises(ImageInUse, match="none of these admin roles: admin"):
        delete(database, glance, who, forced=True)
    assert "DELETE" not in glance.asked


def test_boot_of_an_earlier_image_with_the_id_does_not_protect(
    database: Database,
) -> None:
    start(database)
    later = {"id": IMAGE, "owner": "demo", "created_at": "2026-02-28T11:00:00Z"}
    assert delete(database, Answering(image=later), OWNER) == 204


def test_deletion_passes_without_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Database(f"sqlite:///{tmp_path}/without-tables.db", 1)
    with caplog.at_level(logging.WARNING):
        assert delete(lost, Answering(), OWNER) == 204
    lost.close()
    unchecked, unrecorded = [
        line.message for line in caplog.records if line.name == failures.__name__
    ]
    assert "is deleted without the check of its use" in unchecked
    assert "is left to reconciliation" in unrecorded


@pytest.mark.parametrize(
    ("spelled", "glance", "image"),
    [
        (IMAGE, Answering(shows="503 Service Unavailable"), IMAGE),
        (IMAGE.upper(), Answering(), IMAGE),
        (IMAGE.upper(), Answering(image={"id": OTHER_IMAGE}), OTHER_IMAGE),
        (IMAGE.upper(), Answering(shows="404 Not Found"), None),
        (IMAGE.upper(), Answering(shows="503 Service Unavailable"), IMAGE),
        ("no id", Answering(shows="503 Service Unavailable"), None),
        (IMAGE.upper(), Answering(image={"id": 7}), None),
    ],
)
def test_glance_resolves_other_spellings_of_an_id(
    spelled: str, glance: Answering, image: str | None
) -> None:
    environ = wsgi.environ_of("DELETE", "/v2/images/x", OWNER)
    assert delete_image.find_id(glance, environ, spelled) == image
