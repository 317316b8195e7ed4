"""The numbers of the dependents of an image, by type and by project.

The images are read level by level. Then the resources below the images of some levels are read
together, and the resources that come from these. Each statement reads at most :data:`ROWS` rows.
After :data:`LONGEST` seconds or :data:`MOST` rows, the numbers of what was read until then are a
lower bound.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from related_images.db import dependent_walk, lineage_walk
from related_images.db.database import Database
from related_images.db.origin_walk import STEPS
from related_images.db.row_ids import image_ref
from related_images.db.tables import installation, project
from related_images.model import SHELVED, DependentCounts

LONGEST: Final = 0.8
"""The time in seconds after which no further statement begins."""
MOST: Final = 500_000
"""The largest number of rows that are read."""
ROWS: Final = 5_000
BATCH: Final = 500
"""The number of images or resources in one statement; see :data:`related_images.db.usages.PART`."""

Numbers = Mapping[str, DependentCounts]
"""The numbers by type of the resources."""


@dataclass(frozen=True)
class Summary:
    """The numbers of the dependents of an image.

    :ivar by_project: the numbers by type, for each project; ``None`` for an unknown project
    :ivar is_lower_bound: whether there may be more
    """

    by_project: Mapping[str | None, Numbers]
    is_lower_bound: bool

    @property
    def by_type(self) -> Numbers:
        """The numbers of all projects together, by type."""
        types = sorted({type for numbers in self.by_project.values() for type in numbers})
        return {
            type: sum(
                (numbers[type] for numbers in self.by_project.values() if type in numbers),
                DependentCounts(),
            )
            for type in types
        }


def summary(database: Database, image_id: str, visible_to: str | None) -> Summary:
    """Return the numbers of the dependents of an image.

    Each resource counts once, even if it depends on the image in several ways.

    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :raises StoreUnavailable: if the database is unavailable
    """
    reading = _Reading(database, visible_to)
    root = database.explore(_root, image_id)
    if root is not None:
        reading.add_below([root], is_direct=True)
        reading.add_indirect(root)
    return Summary(reading.by_project(), reading.is_lower_bound)


def _root(connection: Connection, image_id: str) -> int | None:
    ref: int | None = connection.execute(select(image_ref(image_id))).scalar()
    return ref


@dataclass(slots=True)
class _Resource:
    """What is known of a resource.

    :ivar is_live: whether it depends on one of the images now
    :ivar is_direct: whether it depends on the first of them now
    """

    installation_ref: int
    project_ref: int | None
    is_live: bool = False
    is_direct: bool = False


@dataclass
class _Reading:
    """The resources that were read, by primary key."""

    database: Database
    visible_to: str | None
    found: dict[int, _Resource] = field(default_factory=dict)
    is_lower_bound: bool = False
    _rows: int = 0
    _end: float = field(default_factory=lambda: time.monotonic() + LONGEST)

    def add_indirect(self, root: int) -> None:
        """Add the resources below all images that were made from an image."""
        images: list[int] = []
        for level in self._levels_below(root):
            images += level
            # fewer statements if there is time, and something to count if there is not
            if len(images) >= BATCH or time.monotonic() > self._end - LONGEST / 2:
                self.add_below(images, is_direct=False)
                images = []
        self.add_below(images, is_direct=False)

    def _levels_below(self, root: int) -> Iterator[list[int]]:
        """Yield the images that were made from an image, then those made from these, and so on."""
        found, level = {root}, [root]
        while level:
            rows = self._read(level, lineage_walk.children_of)
            level = [ref for (ref,) in rows if ref not in found]
            found.update(level)
            yield level

    def add_below(self, images: Sequence[int], *, is_direct: bool) -> None:
        """Add the resources below some images, and those that come from them."""
        started: dict[int, None] = {}
        for ref, is_live, installation_ref, project_ref, kind in self._read(
            images, dependent_walk.starts_of
        ):
            if kind == SHELVED and not is_live:  # the server no longer needs the image
                continue
            started[ref] = None
            self._add(ref, bool(is_live), installation_ref, project_ref, is_direct=is_direct)
        level, passed = [*started], {*started}
        for _ in range(STEPS):
            below = []
            for ref, is_live, installation_ref, project_ref in self._read(
                level, dependent_walk.origins_of
            ):
                self._add(ref, bool(is_live), installation_ref, project_ref, is_direct=is_direct)
                if ref not in passed:
                    passed.add(ref)
                    below.append(ref)
            level = below
            if not level:
                return

    def _add(
        self,
        ref: int,
        is_live: bool,
        installation_ref: int,
        project_ref: int | None,
        *,
        is_direct: bool,
    ) -> None:
        one = self.found.setdefault(ref, _Resource(installation_ref, project_ref))
        one.is_live |= is_live
        one.is_direct |= is_live and is_direct

    def _read(self, refs: Sequence[int], query: Any) -> Iterator[Any]:
        """Yield the rows below some images or resources.

        :param query: takes some of ``refs``, the last row that was read, and the number of rows
        """
        for start in range(0, len(refs), BATCH):
            some, after = refs[start : start + BATCH], None
            while True:
                if time.monotonic() > self._end or self._rows >= MOST:
                    self.is_lower_bound = True
                    return
                rows = self.database.explore(query, some, after, ROWS, self.visible_to)
                self._rows += len(rows)
                yield from (row[2:] for row in rows)
                if len(rows) < ROWS:
                    break
                after = rows[-1][:2]

    def by_project(self) -> Mapping[str | None, Numbers]:
        """Return the numbers by project and type."""
        types = self._names(installation.c.id, installation.c.resource_type, self._homes())
        owners = {one.project_ref for one in self.found.values() if one.project_ref is not None}
        names = self._names(project.c.id, project.c.project_id, owners)
        counted: Counter[tuple[str | None, str, bool, bool]] = Counter()
        for one in self.found.values():
            owner = None if one.project_ref is None else names[one.project_ref]
            if self.visible_to not in (None, owner):
                owner = None
            counted[owner, types[one.installation_ref], one.is_live, one.is_direct] += 1
        numbers: dict[str | None, dict[str, DependentCounts]] = {}
        for (owner, type, is_live, is_direct), count in sorted(counted.items(), key=str):
            of_owner = numbers.setdefault(owner, {})
            more = DependentCounts(
                live=count * is_live,
                ended=count * (not is_live),
                direct=count * is_direct,
                indirect=count * (is_live and not is_direct),
            )
            of_owner[type] = of_owner.get(type, DependentCounts()) + more
        return numbers

    def _homes(self) -> set[int]:
        return {one.installation_ref for one in self.found.values()}

    def _names(self, key: Any, name: Any, refs: Collection[int]) -> dict[int, str]:
        ordered = sorted(refs)
        return {
            row[0]: row[1]
            for start in range(0, len(ordered), BATCH)
            for row in self.database.explore(
                _rows, select(key, name).where(key.in_(ordered[start : start + BATCH]))
            )
        }


def _rows(connection: Connection, query: Select[Any]) -> Iterable[Any]:
    return connection.execute(query).all()
