"""The resources between an image and its parent: see :mod:`.parent_links`.

A link names the resource that the image was made from. If that resource comes from another one, the
others are found through its origins, in two queries for a page, or more for many resources.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, select

from related_images.db.index_hints import look_up
from related_images.db.lineage_walk import Link
from related_images.db.parent_links import History, events, in_batches, trace
from related_images.db.row_ids import shown_installation
from related_images.db.tables import installation, instance, origin
from related_images.model import SERVER, InstanceRef

Via = tuple[InstanceRef, ...]


def between(connection: Connection, links: Collection[Link]) -> dict[Link, Via]:
    """Return the resources between the parent and the image of each link.

    :returns: the resources in the order of their origin: the first one was made from the parent,
        and the image was made from the last one
    """
    named = _names(connection, {link.instance_ref for link in links})
    histories = _histories(connection, named.keys())
    found = {}
    for link in links:
        ref, is_server = link.instance_ref, link.resource_type == SERVER
        way = trace(ref, link.created_at, histories.__getitem__, is_server=is_server)
        # the start may have been removed after the page was read
        passed = way.passed if way else [ref]
        found[link] = tuple(named[one] for one in reversed(passed))
    return found


def _names(connection: Connection, refs: Collection[int]) -> Mapping[int, InstanceRef]:
    """Return some instances, and all that they come from."""
    walk = select(instance.c.id.label("ref")).where(instance.c.id.in_(refs)).cte(recursive=True)
    above = origin.alias("above")
    dialect = connection.dialect.name
    found, columns = look_up(dialect, walk, above, above.c.instance_ref == walk.c.ref)
    source = select(columns.source_ref).select_from(found).where(columns.source_ref.is_not(None))
    walk = walk.union(source)
    query = (
        select(
            *(walk.c.ref, shown_installation(), instance.c.instance_id),
            installation.c.resource_type,
        )
        .join_from(walk, instance, instance.c.id == walk.c.ref)
        .join(installation, installation.c.id == instance.c.installation_ref)
    )
    return {row.ref: InstanceRef.unchecked(*row[1:]) for row in connection.execute(query)}


def _histories(connection: Connection, refs: Collection[int]) -> Mapping[int, History]:
    histories = {ref: History() for ref in refs}
    # a statement of SQLite has a limited number of parameters
    for some in in_batches(refs):
        for row in connection.execute(events(partial(_of, some))):
            histories[row.instance_ref].add(row)
    return histories


def _of(refs: Collection[int], query: Select[Any], ref: Any) -> Select[Any]:
    return query.where(ref.in_(refs))
