"""The database: what is recorded, how it is asked for, and how it is kept right.

One module holds one use case. Its public functions take a :class:`Database`, and its private ones
take a connection inside a transaction:

* :mod:`.recording`, :mod:`.notifications` and :mod:`.backfill` record what is reported;
* :mod:`.listing`, :mod:`.instances`, :mod:`.lineage` and :mod:`.rotation` answer;
* :mod:`.deletions` guards images in use, and :mod:`.installations` registers installations;
* :mod:`.reconcile` and :mod:`.purge` keep the database right and small.

What several use cases share takes a connection: :mod:`.relations`, :mod:`.removals`,
:mod:`.relation_queries`, :mod:`.lineage_walk`, :mod:`.image_identity`, :mod:`.image_owners`,
:mod:`.latest_images`, :mod:`.parent_links`, :mod:`.orphans`, :mod:`.row_ids`, :mod:`.state`. Below
them are the tables and the way into the database.
"""

from related_images.db.database import Database
from related_images.model import (
    Filters,
    Images,
    ImageState,
    Installation,
    Instance,
    InstancePosition,
    ListedImage,
    NewRelation,
    Recorded,
    Relation,
    RelationPosition,
    Reporter,
)

__all__ = [
    "Database",
    "Filters",
    "ImageState",
    "Images",
    "Installation",
    "Instance",
    "InstancePosition",
    "ListedImage",
    "NewRelation",
    "Recorded",
    "Relation",
    "RelationPosition",
    "Reporter",
]
