"""Three Galera nodes accept writes, one is killed and restarted: nothing is lost."""

import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from related_images.db import Database, NewRelation, Reporter, recording, schema
from related_images.errors import StoreUnavailable
from related_images.model import InstanceRef
from tests.conftest import started
from tests.guarantees import galera
from tests.guarantees.reconciling import INSTALLATION

pytestmark = pytest.mark.slow

NODE_KILLS = int(os.environ.get("RELATED_IMAGES_NODE_KILLS", "1"))
"""The number of kills of a node."""

LOAD = float(os.environ.get("RELATED_IMAGES_GALERA_SECONDS", "3"))
"""The duration in seconds of the load before, between and after the kills."""

WRITERS = 2
"""The number of writers for each node."""

REPORTER = Reporter(frozenset())


@pytest.fixture
def cluster() -> Iterator[list[galera.Node]]:
    yield from started(galera.cluster)


@pytest.fixture
def nodes(cluster: list[galera.Node]) -> list[galera.Node]:
    """A cluster with the tables."""
    cluster[0].ask("CREATE DATABASE related")
    schema.upgrade(cluster[0].url("related"))
    return cluster


def relation(image_id: str) -> NewRelation:
    return NewRelation(
        instance=InstanceRef(INSTALLATION, f"i-{random.randrange(3)}"),
        # few, so that transactions conflict
        image_id=image_id,
        kind="snapshot",
        label=None,
        source="service",
        project_id=f"p-{random.randrange(3)}",
        created_at=datetime.now(UTC),
    )


class Writer(threading.Thread):
    """Records through one node: new images, and images that others record concurrently.

    :ivar committed: the images whose recording returned
    """

    def __init__(self, node: galera.Node, stop: threading.Event, shared: list[str]) -> None:
        super().__init__()
        self.committed: list[str] = []
        self._database = Database(node.url("related"), 2.0)
        self._asked_to_stop = stop
        self._shared = shared

    def run(self) -> None:
        while not self._asked_to_stop.is_set():
            image_id = random.choice([str(uuid4()), *self._shared])
            try:
                recording.announce(self._database, relation(image_id), REPORTER)
            except StoreUnavailable:
                self._asked_to_stop.wait(0.05)
            else:
                self.committed.append(image_id)

    def wait_for_more(self) -> None:
        """Wait until one more recording is committed."""
        before, deadline = len(self.committed), time.monotonic() + galera.PATIENCE
        while len(self.committed) == before:
            assert time.monotonic() < deadline, "the writer does not go on"
            time.sleep(0.05)


def total(nodes: list[galera.Node], status: str) -> int:
    return sum(int(node.ask(f"SHOW STATUS LIKE '{status}'") or 0) for node in nodes)


def images_on(node: galera.Node) -> set[str]:
    """Return the images on a node, after it has caught up with the others."""
    url = node.url("related")
    with schema.connected(url) as connection:
        connection.exec_driver_sql("SET SESSION wsrep_sync_wait=1")
        found = connection.exec_driver_sql(
            "SELECT lower(hex(uuid)) FROM related.related_image i "
            "JOIN related.related_relation r ON r.image_ref = i.id"
        )
        return set(found.scalars())


def test_nothing_is_lost(nodes: list[galera.Node], capsys: pytest.CaptureFixture[str]) -> None:
    stop, shared = threading.Event(), [str(uuid4()) for _ in range(2)]
    writers = [Writer(node, stop, shared) for node in nodes for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    conflicts = 0
    try:
        for _ in range(NODE_KILLS):
            stop.wait(LOAD)
            conflicts += conflicts_of(nodes)
            nodes[-1].kill()
            stop.wait(LOAD)
            nodes[-1].start()
        for writer in writers:
            writer.wait_for_more()
        stop.wait(LOAD)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    conflicts += conflicts_of(nodes)
    committed = {id.replace("-", "") for writer in writers for id in writer.committed}
    on_nodes = [images_on(node) for node in nodes]
    assert on_nodes[0] == on_nodes[1] == on_nodes[2]
    assert committed <= on_nodes[0]
    assert conflicts > 0, "no two transactions met"
    rows = nodes[0].ask("SELECT count(*) FROM related.related_relation")
    with capsys.disabled():
        print(
            f"\n{NODE_KILLS} nodes killed, {len(committed)} images committed, {rows} rows equal on "
            f"{len(nodes)} nodes, {conflicts} lost certifications"
        )


def conflicts_of(nodes: list[galera.Node]) -> int:
    return total(nodes, "wsrep_local_cert_failures") + total(nodes, "wsrep_local_bf_aborts")
