"""``backfill``: recording what images claimed before there was a filter, if it is credible."""

import argparse
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from related_images import validation
from related_images.errors import BadInput
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
"""Images that are asked for and judged at once."""

AT_ONCE: Final = 50
"""Claims that are recorded in one transaction: a slow database gets through them in time."""

Position = tuple[str, Mapping[str, str]]
"""Whether among hidden images, and the parameters that ask for those behind the last one."""

BEGINNING: Final[Position] = ("false", {})
"""Where a backfill begins: the images that are not hidden, behind none."""

COLUMNS: Final = ("image_id", "instance_id", "project_id", "reason")
_WIDTHS: Final = (36, 36, 32, 0)


class Backfill(options.OnDatabase):
    """Record the images that Nova's properties say were made from an instance.

    Users can set these properties, and images inherit them. A claim is recorded, with the source
    backfill, unless something known contradicts it: those that are not recorded are listed with the
    reason. A run that was interrupted is taken up where it ended; to run it again changes nothing.
    """

    exit_codes = (
        f"{options.OnDatabase.exit_codes} That claims are doubted is no failure: they are listed. "
        "An account from which Glance may hide images is a failure, and nothing is recorded."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--installation",
            metavar="UUID",
            type=validation.argument(validation.installation_uuid),
            required=True,
            help="whose instances the images claim to be made from",
        )
        parser.add_argument("--dry-run", action="store_true", help="judge, and record nothing")
        parser.add_argument(
            "--ask-nova",
            action="store_true",
            help="ask Nova whose each instance is or was; what it does not know is doubted",
        )
        parser.add_argument(
            "-f",
            "--format",
            choices=("table", "json"),
            default="table",
            help="how what is doubted is written (default: %(default)s)",
        )
        cloud_options.add_options(parser)

    def take_action(self, given: argparse.Namespace) -> None:
        from related_images.manage import database_access
        from related_images.manage.glance_admin import GlanceAdmin
        from related_images.manage.nova_servers import Compute
        from related_images.manage.rate_limit import RateLimit

        glance = GlanceAdmin(cloud_options.image_adapter(given), RateLimit(math.inf))
        compute = Compute(cloud_options.adapter(given, "compute")) if given.ask_nova else None
        with database_access.open_database(given) as database:
            glance.must_show_all()
            run = _Run(database, given.installation, compute, given.dry_run)
            report = _REPORTS[given.format](self.app.stdout)
            for claim, reason in run.doubts(glance):
                report.add(claim, reason)
        report.end({**run.counts, "dry_run": given.dry_run})


@dataclass
class _Run:
    """One backfill; ``counts`` says how many images were looked at, and what became of them."""

    database: "Database"
    installation_uuid: str
    compute: "Compute | None"
    dry_run: bool
    counts: Counter[str] = field(
        default_factory=lambda: Counter(images=0, recorded=0, known=0, doubted=0, unreadable=0)
    )

    def doubts(self, glance: "GlanceAdmin") -> Iterator[tuple["NovaClaim", str]]:
        """Carry the backfill out, giving each claim that is not recorded with the reason."""
        from related_images.db import backfill

        for images, position in prefetch(_pages(glance, self._position(glance))):
            self.counts["images"] += len(images)
            yield from self._settle(list(self._claims(images)))
            if not self.dry_run:
                backfill.remember(self.database, self.installation_uuid, position)
        if not self.dry_run:
            backfill.finish(self.database, self.installation_uuid)

    def _position(self, glance: "GlanceAdmin") -> Position:
        from related_images.client.errors import NotFound
        from related_images.db import backfill

        text = backfill.position(self.database, self.installation_uuid)
        if self.dry_run or text is None:
            return BEGINNING
        hidden, _, marker = text.partition(" ")
        try:
            behind = glance.ask("GET", f"/images/{marker}").read(_behind)
        except NotFound:
            return BEGINNING
        LOG.info("going on behind the image %s", marker)
        return hidden, behind

    def _claims(self, images: Iterable[dict[str, Any]]) -> Iterator["NovaClaim"]:
        from related_images.manage import nova_properties

        for image in images:
            try:
                claim = nova_properties.read(image)
            except (BadInput, KeyError) as error:
                self.counts["unreadable"] += 1
                LOG.warning("the image %s cannot be understood: %s", image.get("id"), error)
                continue
            if claim is not None:
                yield claim

    def _settle(self, claims: list["NovaClaim"]) -> Iterator[tuple["NovaClaim", str]]:
        candidates = [self._candidate(claim) for claim in claims]
        verdicts = self._verdicts([one for one in candidates if one is not None])
        for claim, candidate in zip(claims, candidates, strict=True):
            if candidate is None:
                self.counts["doubted"] += 1
                yield claim, claim.doubt or "Nova knows no such instance"
                continue
            verdict = next(verdicts)
            self.counts[verdict.outcome] += 1
            if verdict.reason is not None:
                yield claim, verdict.reason

    def _verdicts(self, candidates: list["Candidate"]) -> Iterator["Verdict"]:
        from related_images.db import backfill

        settle = backfill.judge if self.dry_run else backfill.record
        for begin in range(0, len(candidates), AT_ONCE):
            part = candidates[begin : begin + AT_ONCE]
            yield from settle(self.database, self.installation_uuid, part)

    def _candidate(self, claim: "NovaClaim") -> "Candidate | None":
        from related_images.db.backfill import Candidate

        if claim.doubt or claim.instance_id is None or not claim.owner or not claim.kind:
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
    """All images, hidden ones last, page by page, each with the position behind it."""
    hidden, behind = position
    yield from _pages_of(glance, hidden, behind)
    if hidden == BEGINNING[0]:
        yield from _pages_of(glance, "true", {})


def _pages_of(
    glance: "GlanceAdmin", hidden: str, behind: Mapping[str, str]
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    from tqdm import tqdm

    query = {"visibility": "all", "os_hidden": hidden, "limit": str(PAGE)}
    query |= {"sort_key": "created_at", "sort_dir": "asc"}
    with tqdm(unit="image", disable=not sys.stderr.isatty()) as bar:
        while True:
            answer = glance.ask("GET", "/images", params={**query, **behind})
            images = answer.read(lambda body: list(body["images"]))
            if not images:
                return
            bar.update(len(images))
            yield images, f"{hidden} {images[-1]['id']}"
            before, behind = behind, _behind(images[-1])
            if behind == before:
                raise answer.unusable("it ends with the image behind which it should begin")


def _behind(image: Mapping[str, Any]) -> dict[str, str]:
    """The parameters that ask for the images behind this one, in the order of their times.

    The marker alone would do; many a database then goes through all that lie before it.
    """
    since = {"created_at": f"gte:{image['created_at']}"} if image.get("created_at") else {}
    return {"marker": image["id"], **since}


class _Table:
    """Writes row by row, so that a million take no more memory than one."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows = 0

    def add(self, claim: "NovaClaim", reason: str) -> None:
        if not self._rows:
            self._write(COLUMNS)
        self._rows += 1
        named = (claim.image_id, claim.instance_id or "-", claim.owner or "-", reason)
        self._write(text if text.isprintable() else validation.shown(text) for text in named)

    def end(self, counts: dict[str, Any]) -> None:
        said = ", ".join(f"{name}: {number}" for name, number in counts.items())
        self._out.write(f"{said}\n")

    def _write(self, row: Iterable[str]) -> None:
        cells = [text.ljust(width) for text, width in zip(row, _WIDTHS, strict=True)]
        self._out.write("  ".join(cells) + "\n")


class _Json:
    """Writes one object: the doubted claims and the counts."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._out.write('{"doubted": [')
        self._between = "\n"

    def add(self, claim: "NovaClaim", reason: str) -> None:
        values = (claim.image_id, claim.instance_id, claim.owner, reason)
        row = json.dumps(dict(zip(COLUMNS, values, strict=True)))
        self._out.write(f"{self._between}{row}")
        self._between = ",\n"

    def end(self, counts: dict[str, Any]) -> None:
        self._out.write(f'],\n"counts": {json.dumps(counts)}}}\n')


_REPORTS: Final[dict[str, type[_Table | _Json]]] = {"table": _Table, "json": _Json}
