"""The use cases, in the words of the field, and what they are asked with and answer."""

from related_images.db.database import Database
from related_images.model import (
    Filters,
    Images,
    Installation,
    Instance,
    ListedImage,
    NewRelation,
    Place,
    Position,
    Recorded,
    Relation,
    Seen,
)

__all__ = [
    "Database",
    "Filters",
    "Images",
    "Installation",
    "Instance",
    "ListedImage",
    "NewRelation",
    "Place",
    "Position",
    "Recorded",
    "Relation",
    "Seen",
]
