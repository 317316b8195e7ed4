"""The database layer.

A module holds one use case. Its public functions take a :class:`Database`; its private functions
take a connection inside a transaction:

* :mod:`.recording`, :mod:`.origins`, :mod:`.notifications` and :mod:`.backfill` record what is
  reported;
* :mod:`.listing`, :mod:`.origins`, :mod:`.instances`, :mod:`.usages`, :mod:`.lineage` and
  :mod:`.recorded_backups` read, and so does :mod:`.reconciliation_state`;
* :mod:`.delete_protection` protects images in use;
* :mod:`.installations` registers installations, :mod:`.resource_types` registers types of
  resources, :mod:`.merge` merges one installation into another, and :mod:`.witnesses` records
  the times that the witnesses of an installation covered;
* :mod:`.reconcile` and :mod:`.reconcile_resources` correct the database, and :mod:`.purge` removes
  old rows.

The modules that several use cases share take a connection: :mod:`.relations`,
:mod:`.relation_removal`, :mod:`.relation_queries`, :mod:`.lineage_walk`, :mod:`.image_identity`,
:mod:`.image_owners`, :mod:`.latest_images`, :mod:`.parent_links`, :mod:`.origin_walk`,
:mod:`.orphans`, :mod:`.leases`, :mod:`.coverage`, :mod:`.intervals`, :mod:`.clock`,
:mod:`.row_ids` and :mod:`.stored_state`. They use the tables (:mod:`.tables`,
:mod:`.column_types`, :mod:`.schema`). :mod:`.database` connects to the database and runs
transactions.
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
    NewOrigin,
    NewRelation,
    Origin,
    OriginPosition,
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
    "NewOrigin",
    "NewRelation",
    "Origin",
    "OriginPosition",
    "Recorded",
    "Relation",
    "RelationPosition",
    "Reporter",
]
