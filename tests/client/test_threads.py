"""Many threads with one shared client, each for its own servers."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid5

import glanceclient
import pytest
from keystoneauth1.adapter import Adapter

from related_images.client import (
    InstanceAwareImageService,
    InstanceRef,
    RelationsClient,
    carry_tuple,
    for_instance,
)
from tests.client.clients import SERVICE, session
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

THREADS = 16
CREATES = int(os.environ.get("RELATED_IMAGES_THREAD_CREATES", "20"))
"""Number of images that each thread creates; the full test has 200."""

CONTEXT = UUID("6f2b0c52-1c0e-4f35-9d0e-1df2a2c9b4a1")
SHARED = UUID("0d4a2f63-8d3f-4a8c-9a52-6f5f6e1f3b77")


def _recorded(adapter: Adapter, installation: UUID) -> dict[str, str]:
    """Return the recorded server of each image."""
    relations = RelationsClient(adapter).relations(
        installation_uuid=str(installation), page_size=1000
    )
    return {relation.image_id: relation.instance.instance_id for relation in relations}


def _instances(thread: int) -> list[str]:
    return [f"inst-{thread}-{number}" for number in range(CREATES)]


def test_threads_share_a_glanceclient(glance: ServedGlance) -> None:
    login = session(glance.url, SERVICE)
    client = carry_tuple(glanceclient.Client("2", session=login))
    client.schemas.get("image")
    start = threading.Barrier(THREADS)

    def create_all(thread: int) -> dict[str, str]:
        start.wait(30)
        made = {}
        for instance_id in _instances(thread):
            image_id = str(uuid5(CONTEXT, instance_id))
            with for_instance(InstanceRef(str(CONTEXT), instance_id), kind="backup"):
                client.images.create(id=image_id, name=instance_id)
            made[image_id] = instance_id
        return made

    with ThreadPoolExecutor(THREADS) as executor:
        made = {k: v for each in executor.map(create_all, range(THREADS)) for k, v in each.items()}
    assert len(made) == THREADS * CREATES
    assert _recorded(Adapter(login, service_type="image"), CONTEXT) == made


def test_threads_share_a_service(glance: ServedGlance) -> None:
    adapter = Adapter(session(glance.url, SERVICE), service_type="image")
    images = InstanceAwareImageService(adapter, str(SHARED))
    start = threading.Barrier(THREADS)

    def create_all(thread: int) -> dict[str, str]:
        start.wait(30)
        return {
            images.create(instance, kind="snapshot").id: instance for instance in _instances(thread)
        }

    with ThreadPoolExecutor(THREADS) as executor:
        made = {k: v for each in executor.map(create_all, range(THREADS)) for k, v in each.items()}
    assert len(made) == THREADS * CREATES
    assert _recorded(adapter, SHARED) == made
