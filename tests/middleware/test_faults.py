"""A fault of the filter's own program, in front of an app in the place of Glance.

A request without the instance headers works as without the filter.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, false, select
from sqlalchemy.exc import NoResultFound

from related_images.db import Database
from related_images.db.tables import image
from tests import wsgi
from tests.filters import StubGlance, filtering, instance_headers, migrated, new_uuid

SERVICE = wsgi.identity("nova", "services", "service")
OWNER = wsgi.identity("alice", "own", "member")
IMAGE = "0f8fad5b-d9cb-469f-a165-70867728950e"
ROTATION = (
    f"/v2/images?image_type=backup&backup_type=daily&instance_uuid={new_uuid()}"
    "&limit=200&sort_key=created_at&sort_dir=desc"
)


def read_a_missing_row(connection: Connection) -> object:
    return connection.execute(select(image).where(false())).one()


@pytest.fixture
def break_tasks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes each later call of a database fail."""
    attempt = Database._attempt

    def fail(database: Database, mode: Any, *_: Any) -> object:
        return attempt(database, mode, read_a_missing_row)

    return lambda: monkeypatch.setattr(Database, "_attempt", fail)


@pytest.mark.parametrize(
    ("method", "path", "status", "logged"),
    [
        ("DELETE", f"/v2/images/{IMAGE}", 204, "is left to reconciliation"),
        ("POST", f"/v2/images/{IMAGE}/actions/deactivate", 200, "without the check of its use"),
        ("GET", ROTATION, 200, "gets an empty list"),
    ],
)
@pytest.mark.parametrize("guard", ["off", "in-use"])
def test_a_request_without_instance_headers_works(
    guard: str,
    method: str,
    path: str,
    status: int,
    logged: str,
    tmp_path: Path,
    break_tasks: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"guard": guard, "guard_actions": "delete,deactivate", "nova_rotation": "verified"}
    glance = StubGlance()
    guarded = filtering(glance, migrated(tmp_path), **options)
    break_tasks()
    assert wsgi.call(guarded, method, path, OWNER).status == status
    assert glance.seen[-1]["REQUEST_METHOD"] == method
    is_called = guard != "off" or "deactivate" not in path
    assert (logged in caplog.text) is is_called
    assert ("NoResultFound" in caplog.text) is is_called
    assert guarded._database.is_up()


def test_a_recording_fails_before_an_image_is_created(
    tmp_path: Path, break_tasks: Callable[[], None]
) -> None:
    glance = StubGlance()
    guarded = filtering(glance, migrated(tmp_path))
    break_tasks()
    with pytest.raises(NoResultFound):
        create(guarded)
    assert glance.created == []
    assert guarded._database.is_up()


def create(guarded: Any) -> int:
    headers = SERVICE | instance_headers(new_uuid(), "vm-1")
    return wsgi.call(guarded, "POST", "/v2/images", headers, {"name": "one"}).status


@pytest.mark.parametrize("status", ["201 Created", "409 Conflict"])
def test_the_response_of_glance_reaches_the_caller_of_a_recording(
    status: str, tmp_path: Path, break_tasks: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Answering(StubGlance):
        def _answer(self, environ: Any) -> tuple[str, Any]:
            break_tasks()
            return status, {"created_at": "2026-01-31T11:00:00Z", "owner": "own"}

    guarded = filtering(Answering(), migrated(tmp_path))
    with caplog.at_level(logging.ERROR):
        assert create(guarded) == int(status[:3])
    assert "NoResultFound" in caplog.text
    assert "reconciliation" in caplog.text
