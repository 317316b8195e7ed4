"""Recording what was claimed before there was a filter, where nothing that is known contradicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from related_images.db import bulk_recording, lookups, state
from related_images.db.database import Database
from related_images.model import (
    BACKFILL,
    NewRelation,
    Relation,
    Seen,
)

POSITION: Final = "backfill-position:"
"""Begins the row of the state that remembers how far a backfill came."""

RECORDED: Final = "recorded"
KNOWN: Final = "known"
DOUBTED: Final = "doubted"


@dataclass(frozen=True)
class Candidate:
    """An image that may have been made from an instance of ``project_id``, as far as is known."""

    image_id: str
    owner: str
    instance_id: str
    kind: str
    label: str | None
    created_at: datetime
    project_id: str | None


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate, and why."""

    outcome: str
    reason: str | None = None


def position(database: Database, installation_uuid: str) -> str | None:
    """How far an unfinished backfill of this installation came."""
    return database.read(state.get, POSITION + installation_uuid)


def finish(database: Database, installation_uuid: str) -> None:
    """Let the next backfill begin anew."""
    database.write(state.drop, POSITION + installation_uuid)


def judge(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """What would become of the candidates, each taken alone; nothing is recorded.

    :raises StoreUnavailable: if the database cannot answer
    """
    known = database.read(_known, installation_uuid, candidates)
    return [known.verdict(one) or Verdict(RECORDED) for one in candidates]


def record(
    database: Database, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    """Record the candidates that nothing contradicts, in one transaction.

    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(_record, installation_uuid, candidates)


def remember(database: Database, installation_uuid: str, position: str) -> None:
    """Remember how far the backfill came."""
    database.write(state.put, POSITION + installation_uuid, position)


def _record(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> list[Verdict]:
    images = {one.image_id for one in candidates}
    instances = {one.instance_id for one in candidates}
    held = bulk_recording.hold(connection, installation_uuid, images, instances)
    known = _known(connection, installation_uuid, candidates)
    verdicts, credible = [], []
    for candidate in candidates:
        verdict = known.verdict(candidate)
        if verdict is None:
            credible.append(_relation(installation_uuid, candidate))
            known.add(credible[-1])
        verdicts.append(verdict or Verdict(RECORDED))
    if credible:
        bulk_recording.record_claims(connection, held, credible)
    return verdicts


@dataclass(frozen=True)
class _Known:
    """What is known of the images and the instances of some candidates, by their ids.

    Of an instance that is whose it is, else whose the oldest image is that was made from it.
    """

    installation_uuid: str
    made: dict[str, list[Relation | NewRelation]]
    owners: dict[str, str | None]

    def verdict(self, candidate: Candidate) -> Verdict | None:
        """What contradicts the candidate, or that it is known; ``None`` if it may be recorded."""
        made = [row for row in self.made.get(candidate.image_id, ()) if _is_same(row, candidate)]
        if made:
            return _against(made, self.installation_uuid, candidate)
        owner = candidate.project_id or self.owners.get(candidate.instance_id)
        if owner is not None and owner != candidate.owner:
            return Verdict(DOUBTED, "its instance belongs to another project")
        return None

    def add(self, new: NewRelation) -> None:
        """Let what is to be recorded be known to the candidates behind it."""
        self.made[new.image_id] = [new]
        self.owners[new.instance_id] = new.project_id


def _known(
    connection: Connection, installation_uuid: str, candidates: Sequence[Candidate]
) -> _Known:
    made: dict[str, list[Relation | NewRelation]] = {}
    for row in lookups.made(connection, {one.image_id for one in candidates}):
        made.setdefault(row.image_id, []).append(row)
    instances = {one.instance_id for one in candidates}
    return _Known(installation_uuid, made, lookups.owners(connection, installation_uuid, instances))


def _is_same(row: Relation | NewRelation, candidate: Candidate) -> bool:
    """Whether a relation is of this image, and not of another that had its ID before."""
    known_at = row.image_created_at if isinstance(row, Relation) else None
    return known_at in (None, candidate.created_at)


def _against(
    made: Sequence[Relation | NewRelation], installation_uuid: str, candidate: Candidate
) -> Verdict:
    """The claim beside what is recorded of the image."""
    claimed = (installation_uuid, candidate.instance_id, candidate.kind)
    if any((row.installation_uuid, row.instance_id, row.kind) == claimed for row in made):
        return Verdict(KNOWN)
    row = made[0]
    return Verdict(
        DOUBTED,
        f"it is recorded as a {row.kind} of the instance {row.instance_id} of "
        f"{row.installation_uuid} ({row.source})",
    )


def _relation(installation_uuid: str, candidate: Candidate) -> NewRelation:
    return NewRelation(
        installation_uuid,
        candidate.instance_id,
        candidate.image_id,
        candidate.kind,
        candidate.label,
        BACKFILL,
        candidate.owner,
        candidate.created_at,
        instance_project_id=candidate.project_id,
        seen=Seen(candidate.created_at, candidate.owner),
    )
