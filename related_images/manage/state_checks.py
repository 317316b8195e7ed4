"""Whether the database has the schema, a synchronous clock, and heartbeats of the witnesses."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from related_images import validation
from related_images.db import clock, coverage, installations, schema
from related_images.db.column_types import FOREVER
from related_images.errors import SchemaMissing, SchemaOutdated, SchemaTooNew
from related_images.manage.findings import Finding, found
from related_images.model import CINDER_BUS, NOVA_BUS

SKEW: Final = timedelta(seconds=5)
"""The largest allowed difference between the clocks of this machine and of the database."""


def check(connection: Connection, installation_uuids: Sequence[str]) -> Iterator[Finding]:
    """Check the database of the filter.

    :param installation_uuids: the installations in the paste files of Nova and Cinder
    """
    try:
        schema.verify(connection)
    except (SchemaMissing, SchemaOutdated, SchemaTooNew) as error:
        yield found("database: schema", str(error))
        return
    yield found("database: schema", "; ".join(schema.differences(connection)) or None)
    yield found("database: clock", _clock_problem(connection))
    yield from _witnesses(connection)
    yield from _registrations(connection, installation_uuids)


def _clock_problem(connection: Connection) -> str | None:
    before = datetime.now(UTC)
    theirs = clock.now(connection)
    after = datetime.now(UTC)
    skew = max(before - theirs, theirs - after)
    if skew <= SKEW:
        return None
    seconds = skew.total_seconds()
    return (
        f"the clocks of this machine and of the database server differ by {seconds:.0f} s; "
        "synchronize the clocks of all hosts, for example with chrony"
    )


def _witnesses(connection: Connection) -> Iterator[Finding]:
    """Check that each expected witness reports now."""
    now = clock.now(connection)
    for one in coverage.load(connection, *coverage.EXPECTED).values():
        subject = f"witness: {one.name} of {one.installation_uuid}"
        gaps = one.gaps(now)
        lasts = gaps and gaps[-1][1] == FOREVER
        if not lasts:
            yield found(subject, None)
            continue
        since = "has never reported"
        if one.stretches:
            since = f"has not reported since {validation.format_seconds(gaps[-1][0])}"
        yield found(subject, f"it {since}; {_ADVICE.get(one.name, _OF_API)}")


_LISTEN: Final = "start `related-images listen` for this installation"
_ADVICE: Final = {NOVA_BUS: _LISTEN, CINDER_BUS: _LISTEN}
_OF_API: Final = (
    "check that its API has the filter of related-images with this installation_uuid and "
    "[service_user], and send it a request: heartbeats begin with the first request"
)


def _registrations(connection: Connection, installation_uuids: Sequence[str]) -> Iterator[Finding]:
    known = {one.uuid for one in installations.registered_in(connection)}
    for uuid in dict.fromkeys(installation_uuids):
        advice = (
            f"run `related-images installation add {uuid} --name NAME --service-user ID --witness "
            "NAME`; otherwise every caller with a recording role may record for it, and no "
            "witness is expected"
        )
        yield found(f"installation: {uuid}", None if uuid in known else advice)
