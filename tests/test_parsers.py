"""Each type of value has one parser: every program accepts the same forms.

The parsers of commands are called through the commands.
"""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest

from related_images.client.backups import stored_policy
from related_images.client.glance import PageSizes
from related_images.client.import_request import RemoteImage, _fault_of_remote
from related_images.errors import RelatedImagesError
from related_images.manage import (
    backfill,
    db,
    installation,
    listen,
    notification_parser,
    reconcile,
    resource_type,
    serve,
)
from related_images.middleware import paging
from related_images.model import InstanceRef
from related_images.osc import (
    image_ancestry,
    image_deletion,
    image_lineage,
    image_relation,
    image_usage,
    server_backup_overdue,
    server_backup_prune,
    server_backup_run,
)
from related_images.protocol import parameters
from related_images.validation import LONGEST_SPAN, format_span, parse_span

UUID: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE: Final = "5a1c9f0e-0000-4000-8000-00000000000a"
REFUSED: Final = "refused"

Read = Callable[[str], Any]


def option(command: Any, name: str, *more: str) -> Read:
    """Return how a command parses an option or, for a ``name`` without dashes, an argument."""
    parser = command(None, None).get_parser("program")

    def read(text: str) -> Any:
        words = [f"{name}={text}"] if name.startswith("-") else ["--", text]
        given = vars(parser.parse_args([*more, *words]))[name.lstrip("-").replace("-", "_")]
        return given[-1] if isinstance(given, list) else given

    return read


def policy(name: str, found: Callable[[stored_policy.StoredPolicy], Any]) -> Read:
    return lambda text: found(stored_policy.read(json.dumps({name: text})))


def label_of_policy(text: str) -> str:
    (label,) = stored_policy.read(json.dumps({"keep_labels": [text]})).retention.labels
    return label


def remote_image(text: str) -> str:
    if _fault_of_remote(RemoteImage(text, "region")):
        raise SystemExit
    return text.lower()


def notified(text: str) -> Any:
    data = {"uuid": "i", "tenant_id": "p"}
    sent = {"event_type": "instance.delete.end", "payload": {"nova_object.data": data}}
    event = notification_parser.read(UUID, sent | {"timestamp": text})
    assert event is not None
    return event.at


def outcome(read: Read, text: str) -> Any:
    try:
        return read(text)
    except (RelatedImagesError, SystemExit):
        return REFUSED


UUIDS: Final[Mapping[str, Read]] = {
    "installation add": option(installation.Add, "uuid", "--name=n"),
    "backfill": option(backfill.Backfill, "--installation"),
    "listen": option(listen.Listen, "--installation"),
    "openstack image relation list": option(image_relation.ListRelation, "--installation"),
    "openstack server backup overdue": option(
        server_backup_overdue.OverdueServerBackup, "--installation", "--older-than=1h"
    ),
    "API": parameters.FILTERS["installation_uuid"].parse,
    "client": lambda text: InstanceRef(text, "i").installation_uuid,
    "import": remote_image,
}
INSTANCE_IDS: Final[Mapping[str, Read]] = {
    "openstack server deletion record": option(image_deletion.RecordServerDeletion, "servers"),
    "API": parameters.FILTERS["instance_id"].parse,
    "client": lambda text: InstanceRef(UUID, text).instance_id,
}
LABELS: Final[Mapping[str, Read]] = {
    "openstack image relation list": option(image_relation.ListRelation, "--label"),
    "openstack server backup prune": option(server_backup_prune.PruneServerBackup, "--keep-label"),
    "API": parameters.FILTERS["label"].parse,
    "policy": label_of_policy,
}
TEXTS: Final[Mapping[str, Read]] = {
    "installation add": option(installation.Add, "--name", UUID),
    "API": parameters.FILTERS["project_id"].parse,
}
TIMES: Final[Mapping[str, Read]] = {
    "openstack image relation list": option(image_relation.ListRelation, "--created-after"),
    "API": parameters.FILTERS["created_after"].parse,
    "listen": notified,
}
SPANS: Final[Mapping[str, Read]] = {
    "db purge": option(db.Purge, "--older-than"),
    "reconcile": option(reconcile.Reconcile, "--older-than"),
    "openstack server backup prune": option(server_backup_prune.PruneServerBackup, "--keep-within"),
    "openstack server backup overdue": option(
        server_backup_overdue.OverdueServerBackup, "--older-than"
    ),
    "openstack image usage list": option(image_usage.ListImageUsage, "--unused-for"),
    "policy": policy("older_than", lambda it: it.ages and it.ages.older_than),
}
NUMBERS: Final[Mapping[str, Read]] = {
    "openstack image relation list": option(image_relation.ListRelation, "--limit"),
    "openstack image descendant list": option(image_ancestry.ListDescendant, "--depth", "image"),
    "openstack image lineage show": option(image_lineage.ShowImageLineage, "--width", "image"),
    "openstack server backup run": option(
        server_backup_run.RunServerBackup, "--max-parallel", "--label=l", "--project=p"
    ),
    "resource-type add": option(resource_type.Add, "--longest-lease-days", "stack"),
    "API": parameters.DESCENDANT_FILTERS["depth"].parse,
    "client": lambda text: PageSizes.of(text, None).limit,
}
RANGES: Final[Mapping[str, Read]] = {
    **NUMBERS,
    "serve": option(serve.Serve, "--port"),
    "serve --threads": option(serve.Serve, "--threads"),
    "reconcile": option(reconcile.Reconcile, "--rate"),
    "openstack server backup prune": option(server_backup_prune.PruneServerBackup, "--keep-last"),
    "policy": policy("keep_last", lambda it: it.retention.last),
    "marker": paging.marker_number,
}
"""Numbers whose ranges differ."""

INPUTS: Final = [
    (UUIDS, [UUID, UUID.upper()], ["{" + UUID + "}", "urn:uuid:" + UUID, UUID.replace("-", "")]),
    (UUIDS, [], [UUID + "\n", " " + UUID, UUID[:-1], "", "x"]),
    (INSTANCE_IDS, ["i", "a.Z_0:-", "x" * 255], ["", "x" * 256, "a b", "a/b", "ä", "a\n"]),
    (LABELS, ["daily", "l" * 64], ["", "l" * 65, "a b", "ä", "daily\n"]),
    (TEXTS, ["a b", "ä", "x" * 255], ["", " a", "a ", "x" * 256, "a\nb", "a\0"]),
    (TIMES, ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"], ["", "now", "2026-13-01"]),
    (TIMES, ["2026-01-31T12:00:00", "2026-01-31"], [" 2026-01-31", "2026-01-31T12:00:00Z\n", "7"]),
    (NUMBERS, ["1", "007", "999999999"], ["0", "-1", "1.0", "", " 1", "1\n", "٣", "1" * 10]),
    (RANGES, ["1", "007", "256"], ["", "x", "1_0", " 7", "7 ", "+7", "7\n", "٣", "1e1", "1" * 10]),
    (SPANS, ["26h", "7d", "2w", "1d12h", "1w1d1h", "7305d"], ["9999w", "99999d", "7306d"]),
    (SPANS, [], ["", "7", "d", "-1d", "1.5d", "1 d", "1d ", "1d\n", "1m", "1D", "٣d", "1h" * 11]),
]


@pytest.mark.parametrize(("programs", "taken", "refused"), INPUTS)
def test_every_program_parses_alike(
    programs: Mapping[str, Read], taken: list[str], refused: list[str]
) -> None:
    for text in [*taken, *refused]:
        found = {name: outcome(read, text) for name, read in programs.items()}
        values = set(found.values())
        assert len(values) == 1, (text, found)
        assert (values == {REFUSED}) is (text in refused), (text, found)


@pytest.mark.parametrize("text", ["26h", "7d", "14d", "36h"])
def test_span_round_trip(text: str) -> None:
    assert format_span(parse_span(text)) == text


def test_longest_span_is_twenty_years() -> None:
    assert parse_span("7305d") == LONGEST_SPAN > timedelta(days=20 * 365)
