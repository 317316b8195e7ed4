"""``reconcile --resources`` and ``backfill`` with the real Cinder.

It runs after test_block_storage.py. While the listener is stopped, its queue keeps the messages;
they are removed before it starts again.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from related_images.db import Database, coverage, installations, instances
from related_images.model import InstanceRef, Origin
from tests.cloud.cloud import PATIENCE, Cloud, eventually
from tests.cloud.plan import RELATED, VOLUMES
from tests.cloud.starting import without_listener
from tests.cloud.test_block_storage import asked
from tests.cloud.test_programs import on_database, reconcile
from tests.cloud.volume_actions import VolumeHands
from tests.client.scripted import Reply, serving

RESOURCES: Final = ("--resources", VOLUMES, "--os-cloud", "admin")
WITNESSES: Final = ("cinder-api", "cinder-bus")


@dataclass
class Unseen:
    """What happened while nobody reported.

    :ivar counts: those of a dry run, of the run, and of another one
    """

    image: str
    volumes: dict[str, str]
    snapshots: dict[str, str]
    counts: list[dict[str, Any]]
    gaps: list[set[str]]


def named(volume_id: str, resource_type: str = "volume") -> InstanceRef:
    return InstanceRef(VOLUMES, volume_id, resource_type)


@contextmanager
def database(cloud: Cloud) -> Iterator[Database]:
    with closing(Database(cloud.plan.database_of(RELATED), PATIENCE)) as opened:
        yield opened


def ended(cloud: Cloud, ref: InstanceRef) -> bool:
    with database(cloud) as opened:
        found = instances.show(opened, ref, None)
    return found.ended_at is not None
