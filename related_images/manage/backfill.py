"""``backfill``: record what is known of images and volumes that are older than the filters."""

import argparse
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TextIO

from related_images import validation
from related_images.errors import BadInput, ConfigurationError
from related_images.manage import cloud_options, options
from related_images.prefetch import prefetch

if TYPE_CHECKING:
    from related_images.db import Database
    from related_images.db.backfill import Candidate, Verdict
    from related_images.manage.glance_admin import GlanceAdmin
    from related_images.manage.nova_properties import NovaClaim
    from related_images.manage.nova_servers import Compute

LOG = logging.getLogger(__name__)

PAGE: Final = 200
"""Images in one page."""

BATCH: Final = 50
"""Claims in one transaction, few enough for a slow database to finish within its time limit."""

Position = tuple[str, Mapping[str, str]]
"""The value of ``os_hidden``, and the query parameters for the images after the last one."""

FIRST_PAGE: Final[Position] = ("false", {})
"""The first page of the images that are not hidden."""

VOLUME_COUNTS: Final = ("listed", "started", "recorded", "moved", "restored", "unknown")
"""The counts of a backfill from Cinder."""

COLUMNS: Final = ("image_id", "instance_id", "project_id", "reason")
_WIDTHS: Final = (36, 36, 32, 0)


OF_VOLUME: Final = (
    "users can change the image metadata of a volume, and a clone inherits it: the source of the "
    "volume stays unknown"
)
"""The reason for which the image of a volume is rejected."""


class Backfill(options.DatabaseCommand):
    """Record relations from the properties that Nova sets on images of servers.

    Users can set these properties too, and images inherit them. So the command rejects an image if
    its properties contradict each other, if they contradict recorded relations, or if they
    contradict Nova. It lists the rejected images with the reason. The recorded relations have the
    source backfill. If the command is interrupted, the next run continues where it stopped. A
    second complete run changes nothing.

    With --cinder-installation, the command reads the volumes, volume snapshots and volume backups
    in Cinder instead. It records the project of each of them, and the volume or volume snapshot
    that each of them comes from. Cinder's API states the image of a volume only in metadata that
    users can change. Images in this metadata are rejected and listed, unless the source of the
    volume is recorded.
    """

    exit_codes = (
        f"{options.DatabaseCommand.exit_codes} Rejected images are not a failure. The command "
        "fails, and records nothing, if Glance or Cinder may hide something from the account."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``backfill``.

        :param parser: the parser of the command
        """
        installation = parser.add_mutually_exclusive_group(required=True)
        for option, service, resources in (
            ("--installation", "Nova", "servers"),
            ("--cinder-installation", "Cinder", "volumes"),
        ):
            installation.add_argument(
                option,
                metavar="UUID",
                type=validation.argument(validation.installation_uuid),
                help=f"installation ({service} deployment) of the {resources}",
            )
        parser.add_argument(
            "--dry-run", action="store_true", help="list the rejected images, and record nothing"
        )
        parser.add_argument(
            "--ask-nova",
            action="store_true",
            help="ask Nova for the project of each server, and reject images of servers that Nova "
            "does not have",
        )
        parser.add_argument(
            "-f",
            "--format",
            choices=("table", "json"),
            default="table",
            help="output format (default: %(default)s)",
        )
        cloud_options.add_options(parser)

    def take_action(self, args: argparse.Namespace) -> None:
        """Run the backfill, and write the rejected images and the counts to standard output.

        :param args: the parsed arguments
        :raises RelatedImagesError: if a service or the database cannot be used
        """
        run = _of_images if args.cinder_installation is None else _of_volumes
        run(args, self.app.stdout)


def _of_images(args: argparse.Namespace, out: TextIO) -> None:
    """Record the relations that images claim."""
    from related_images.manage import database_access
    from related_images.manage.glance_admin import GlanceAdmin
    from related_images.manage.nova_servers import Compute
    from related_images.manage.rate_limit import RateLimit

    glance = GlanceAdmin(cloud_options.image_adapter(args), RateLimit(math.inf))
    compute = Compute(cloud_options.adapter(args, "compute")) if args.ask_nova else None
    with database_access.open_database(args) as database:
        glance.require_administrator()
        run = _Run(database, args.installation, compute, args.dry_run)
        report = _REPORTS[args.format](out)
        for claim, reason in run.rejected(glance):
            report.add(claim.image_id, claim.instance_id, claim.owner, reason)
    report.end({**run.counts, "dry_run": args.dry_run})


def _of_volumes(args: argparse.Namespace, out: TextIO) -> None:
    """Record what Cinder states of its resources."""
    from related_images.db import reconcile_resources
    from related_images.manage import cinder_admin, database_access
    from related_images.manage.rate_limit import RateLimit

    if args.ask_nova:
        raise ConfigurationError("--ask-nova needs --installation; Cinder is always asked")
    adapter = cloud_options.adapter(args, "block-storage")
    cinder = cinder_admin.resources(adapter, RateLimit(math.inf))
    with database_access.open_database(args) as database:
        cinder[0].require_administrator()
        run = reconcile_resources.begin(
            *(database, args.cinder_installation, timedelta(0), args.dry_run), is_backfill=True
        )
        report = _REPORTS[args.format](out)
        for found in reconcile_resources.reconcile(database, cinder, run, args.dry_run):
            for one in found.rejected:
                report.add(one.claimed_image, one.instance_id, one.project_id, OF_VOLUME)
    counts = asdict(run.counts)
    report.end({name: counts[name] for name in VOLUME_COUNTS} | {"dry_run": args.dry_run})


@dataclass
class _Run:
    """One backfill.

    :ivar counts: the number of images that were read, by outcome
    """

    database: "Database"
    installation_uuid: str
    compute: "Compute | None"
    dry_run: bool
    counts: Counter[str] = field(
        default_factory=lambda: Counter(images=0, recorded=0, known=0, doubted=0, unreadable=0)
    )

    def rejected(self, glance: "GlanceAdmin") -> Iterator[tuple["NovaClaim", str]]:
        """Run the backfill and yield each rejected claim with the reason."""
        from related_images.db import backfill

        for images, position in prefetch(_pages(glance, self._position(glance))):
            self.counts["images"] += len(images)
            yield from self._process(list(self._claims(images)))
            if not self.dry_run:
                backfill.remember(self.database, self.installation_uuid, position)
        if not self.dry_run:
            backfill.finish(self.database, self.installation_uuid)

    def _position(self, glance: "GlanceAdmin") -> Position:
        from related_images.client.errors import NotFound
        from related_images.db import backfill

        text = backfill.position(self.database, self.installation_uuid)
        if self.dry_run or text is None:
            return FIRST_PAGE
        hidden, _, marker = text.partition(" ")
        try:
            query = glance.request("GET", f"/images/{marker}").read(_query_after)
        except NotFound:
            return FIRST_PAGE
        LOG.info("continuing after the image %s", marker)
        return hidden, query

    def _claims(self, images: Iterable[dict[str, Any]]) -> Iterator["NovaClaim"]:
        from related_images.manage import nova_properties

        for image in images:
            try:
                claim = nova_properties.read(image)
            except (BadInput, KeyError) as error:
                self.counts["unreadable"] += 1
                LOG.warning("the image %s cannot be read: %s", image.get("id"), error)
                continue
            if claim is not None:
                yield claim

    def _process(self, claims: list["NovaClaim"]) -> Iterator[tuple["NovaClaim", str]]:
        candidates = [self._candidate(claim) for claim in claims]
        verdicts = self._verdicts([one for one in candidates if one is not None])
        for claim, candidate in zip(claims, candidates, strict=True):
            if candidate is None:
                self.counts["doubted"] += 1
                yield claim, claim.contradiction or "Nova does not know the server"
                continue
            verdict = next(verdicts)
            self.counts[verdict.outcome] += 1
            if verdict.reason is not None:
                yield claim, verdict.reason

    def _verdicts(self, candidates: list["Candidate"]) -> Iterator["Verdict"]:
        from related_images.db import backfill

        check = backfill.judge if self.dry_run else backfill.record
        for begin in range(0, len(candidates), BATCH):
            batch = candidates[begin : begin + BATCH]
            yield from check(self.database, self.installation_uuid, batch)

    def _candidate(self, claim: "NovaClaim") -> "Candidate | None":
        from related_images.db.backfill import Candidate

        if claim.contradiction or claim.instance_id is None or not claim.owner or not claim.kind:
            return None
        project = None
        if self.compute is not None:
            project = self.compute.project_of(claim.instance_id)
            if project is None:
                return None
        return Candidate(
            claim.image_id,
            claim.owner,
            claim.instance_id.lower(),
            claim.kind,
            claim.label,
            claim.created_at,
            project,
        )


def _pages(glance: "GlanceAdmin", position: Position) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Yield the pages of all images, hidden images last, each with the position after it."""
    hidden, query = position
    yield from _pages_of(glance, hidden, query)
    if hidden == FIRST_PAGE[0]:
        yield from _pages_of(glance, "true", {})


def _pages_of(
    glance: "GlanceAdmin", hidden: str, after: Mapping[str, str]
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    from tqdm import tqdm

    query = {"visibility": "all", "os_hidden": hidden, "limit": str(PAGE)}
    query |= {"sort_key": "created_at", "sort_dir": "asc"}
    with tqdm(unit="image", disable=not sys.stderr.isatty()) as bar:
        while True:
            answer = glance.request("GET", "/images", params={**query, **after})
            images = answer.read(lambda body: list(body["images"]))
            if not images:
                return
            bar.update(len(images))
            yield images, f"{hidden} {images[-1]['id']}"
            before, after = after, _query_after(images[-1])
            if after == before:
                raise answer.invalid("the last image of the page is its marker")


def _query_after(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the query parameters for the images after this one, in the order of creation.

    The marker alone is sufficient, but makes many databases read all images before it.
    """
    created = {"created_at": f"gte:{image['created_at']}"} if image.get("created_at") else {}
    return {"marker": image["id"], **created}


class _Table:
    """Write rejected claims as a table, row by row, so that memory use stays constant."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows = 0

    def add(self, *cells: str | None) -> None:
        if not self._rows:
            self._write(COLUMNS)
        self._rows += 1
        texts = (text or "-" for text in cells)
        self._write(text if text.isprintable() else validation.shown(text) for text in texts)

    def end(self, counts: dict[str, Any]) -> None:
        line = ", ".join(f"{name}: {number}" for name, number in counts.items())
        self._out.write(f"{line}\n")

    def _write(self, row: Iterable[str]) -> None:
        cells = [text.ljust(width) for text, width in zip(row, _WIDTHS, strict=True)]
        self._out.write("  ".join(cells) + "\n")


class _Json:
    """Write one JSON object with the rejected claims and the counts."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._out.write('{"doubted": [')
        self._separator = "\n"

    def add(self, *cells: str | None) -> None:
        row = json.dumps(dict(zip(COLUMNS, cells, strict=True)))
        self._out.write(f"{self._separator}{row}")
        self._separator = ",\n"

    def end(self, counts: dict[str, Any]) -> None:
        self._out.write(f'],\n"counts": {json.dumps(counts)}}}\n')


_REPORTS: Final[dict[str, type[_Table | _Json]]] = {"table": _Table, "json": _Json}
