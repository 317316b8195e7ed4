"""Recording what was claimed before there was a filter, where nothing that is known contradicts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from related_images.store import lookups, relations, state
from related_images.store.database import Database
from related_images.store.rows import BACKFILL, NewRelation, Relation

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
    database: Database, installation_uuid: str, candidates: Collection[Candidate]
) -> list[Verdict]:
    """What would become of the candidates, each taken alone; nothing is recorded.

    :raises StoreUnavailable: if the database cannot answer
    """
    return [
        database.read(_verdict, installation_uuid, candidate) or Verdict(RECORDED)
        for candidate in candidates
    ]


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
    verdicts = []
    for candidate in candidates:
        verdict = _verdict(connection, installation_uuid, candidate)
        if verdict is None:
            relations.record(connection, _relation(installation_uuid, candidate), relied_on=True)
        verdicts.append(verdict or Verdict(RECORDED))
    return verdicts


def _verdict(
    connection: Connection, installation_uuid: str, candidate: Candidate
) -> Verdict | None:
    """What is known of the candidate or contradicts it; ``None`` if it may be recorded."""
    made = lookups.made(connection, candidate.image_id)
    if made:
        return _against(made, installation_uuid, candidate)
    owner = candidate.project_id or _owner(connection, installation_uuid, candidate.instance_id)
    if owner is not None and owner != candidate.owner:
        return Verdict(DOUBTED, "its instance belongs to another project")
    return None


def _owner(connection: Connection, installation_uuid: str, instance_id: str) -> str | None:
    """Whose the instance is, else whose the oldest image is that is recorded as made from it."""
    return lookups.instance_project(
        connection, installation_uuid, instance_id
    ) or lookups.oldest_owner(connection, installation_uuid, instance_id)


def _against(made: Sequence[Relation], installation_uuid: str, candidate: Candidate) -> Verdict:
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
    )
