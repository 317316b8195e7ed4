"""Backfill concurrently with other recordings, on each server."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from related_images.db import Database, NewRelation, Reporter, backfill, schema
from related_images.db.backfill import DOUBTED, RECORDED, Candidate
from related_images.db.recording import announce
from related_images.model import InstanceRef
from related_images.validation import parse_time
from tests import servers

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
CLAIMED = "10000000-0000-4000-8000-000000000001"
OTHER = "10000000-0000-4000-8000-000000000002"
NOW: datetime = parse_time("now", "2026-01-31T12:00:00Z")


def candidate(instance_id: str, image_id: str, owner: str = "demo") -> Candidate:
    return Candidate(image_id, owner, instance_id, "snapshot", None, NOW, None)


def truth(instance_id: str, image_id: str, project_id: str = "demo") -> NewRelation:
    return NewRelation(
        InstanceRef(NOVA, instance_id), image_id, "snapshot", None, "service", project_id, NOW
    )


@pytest.fixture(params=["mariadb", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    server: servers.DatabaseServer = request.getfixturevalue(request.param)
    made = server.create()
    schema.upgrade(make_url(made))
    return made


@pytest.mark.parametrize(
    "meanwhile",
    [truth("true", CLAIMED), truth("claimed", OTHER, "other-project")],
    ids=["the image is another instance's", "the instance is another project's"],
)
def test_a_claim_that_a_concurrent_recording_contradicts_is_rejected(
    url: str, monkeypatch: pytest.MonkeyPatch, meanwhile: NewRelation
) -> None:
    database, other, told = Database(url, 20), Database(url, 20), [meanwhile]
    known = backfill._known

    def known_too_early(connection: Connection, *given: Any) -> Any:
        found = known(connection, *given)
        if told:
            announce(other, told.pop(), Reporter(frozenset()))
        return found

    monkeypatch.setattr(backfill, "_known", known_too_early)
    (verdict,) = backfill.record(database, NOVA, [candidate("claimed", CLAIMED)])
    assert verdict.outcome == DOUBTED
    assert not told


def test_contradicting_claims_in_one_transaction_are_rejected(url: str) -> None:
    claims = [candidate("claimed", CLAIMED), candidate("claimed", OTHER, "other-project")]
    assert outcomes(backfill.record(Database(url, 20), NOVA, claims)) == [RECORDED, DOUBTED]


def outcomes(verdicts: Sequence[backfill.Verdict]) -> list[str]:
    return [verdict.outcome for verdict in verdicts]
