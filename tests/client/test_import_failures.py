"""Imports that a real Glance accepts and that fail: the messages, and if their advice works."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from related_images.client import (
    Image,
    ImportFailed,
    InstanceAwareImageService,
    StoreNotOffered,
    Stores,
)
from tests.client.clients import INSTALLATION, MAKERS, SERVICE, Maker
from tests.client.scripted import Reply, Scripted, serving
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

FORMATS: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}
CONFIGURATION = """
[DEFAULT]
enabled_backends = local:file, second:file, full:file
enabled_import_methods = [glance-direct,web-download,copy-image]
[second]
filesystem_store_datadir = {directory}/second
[full]
filesystem_store_datadir = {directory}/full
[import_filtering_opts]
allowed_hosts = [127.0.0.1]
allowed_ports = [{port}]
[image_import_opts]
image_import_plugins = [image_decompression]
[oslo_policy]
policy_file = {directory}/policy.yaml
"""
CUT = gzip.compress(os.urandom(1000))[:-10]
"""Data that Glance's decompression plugin cannot read."""


@pytest.fixture(scope="module")
def web() -> Iterator[Scripted]:
    with serving() as server:
        server.script = lambda asked: Reply(200, CUT if asked.path == "/cut" else b"hello")
        yield server


@pytest.fixture(scope="module")
def glance_with_full_store(
    tmp_path_factory: pytest.TempPathFactory, web: Scripted
) -> Iterator[ServedGlance]:
    directory = tmp_path_factory.mktemp("stores")
    (directory / "policy.yaml").write_text('"copy_image": ""\n')
    configuration = CONFIGURATION.format(directory=directory, port=web.url.rpartition(":")[2])
    with ServedGlance(directory / "glance", glance_conf=configuration) as glance:
        unmount = _fill(directory / "full")
        try:
            yield glance
        finally:
            unmount()


def _fill(store: Path) -> Callable[[], object]:
    """Make a store full; return the function that reverts it."""
    small = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(store)]
    if subprocess.run(small, capture_output=True, check=False).returncode:
        # only root may mount; a store whose directory is a file cannot be written to either
        shutil.rmtree(store)
        store.touch()
        return lambda: None
    with suppress(OSError), (store / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return lambda: subprocess.run(["umount", str(store)], check=True)


@pytest.fixture(params=["glanceclient-session", "openstacksdk", "adapter"])
def make_client(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[str(request.param)]


@pytest.fixture
def images(make_client: Maker, glance_with_full_store: ServedGlance) -> InstanceAwareImageService:
    client = make_client(glance_with_full_store.url, SERVICE)
    return InstanceAwareImageService(client, INSTALLATION)


@pytest.fixture
def instance() -> str:
    return f"inst-{uuid4()}"


@pytest.fixture
def backup(images: InstanceAwareImageService, instance: str) -> Image:
    return images.import_image(b"data", instance_id=instance, kind="backup", deadline=60, **FORMATS)


@pytest.mark.parametrize("all_must_succeed", [True, False])
def test_a_copy_to_a_full_store_fails_and_the_backup_stays(
    images: InstanceAwareImageService, instance: str, backup: Image, all_must_succeed: bool
) -> None:
    stores = Stores(("full",), all_must_succeed=all_must_succeed)
    with pytest.raises(ImportFailed) as caught:
        images.import_image(image_id=backup.id, stores=stores, deadline=60)
    said = str(caught.value)
    assert "not stored in full" in said
    assert f"import_image(image_id='{backup.id}', stores=Stores(ids=('full',)))" in said
    assert "delete" not in said
    assert (caught.value.image_id, caught.value.image_status) == (backup.id, "active")
    assert [image.id for image in images.backups(instance)] == [backup.id]


def test_a_copy_succeeds_after_one_that_failed(
    images: InstanceAwareImageService, backup: Image
) -> None:
    with pytest.raises(ImportFailed):
        images.import_image(image_id=backup.id, stores=Stores(("full",)), deadline=60)
    copied = images.import_image(image_id=backup.id, stores=Stores(("second",)), deadline=60)
    assert set(copied.stores.split(",")) == {"local", "second"}
    assert copied.os_glance_failed_import == "full"


def test_a_copy_to_one_of_several_stores_can_succeed(
    images: InstanceAwareImageService, backup: Image
) -> None:
    stores = Stores(("full", "second"), all_must_succeed=False)
    copied = images.import_image(image_id=backup.id, stores=stores, deadline=60)
    assert set(copied.stores.split(",")) == {"local", "second"}
    assert copied.os_glance_failed_import == "full"


def test_a_copy_is_made_only_to_stores_without_the_image(
    images: InstanceAwareImageService, backup: Image
) -> None:
    both = Stores(("local", "second"))
    copied = images.import_image(image_id=backup.id, stores=both, deadline=60)
    assert set(copied.stores.split(",")) == {"local", "second"}
    assert images.import_image(image_id=backup.id, stores=both, deadline=60).stores == copied.stores


def test_a_refused_copy_is_an_error_and_the_backup_stays(
    images: InstanceAwareImageService, backup: Image
) -> None:
    with pytest.raises(ImportFailed, match="already present at store 'local'") as caught:
        images.import_image(image_id=backup.id)  # to the default store, where it is
    assert "delete" not in str(caught.value)
    assert (caught.value.image_id, caught.value.image_status) == (backup.id, "active")


def test_an_import_to_a_full_store_among_others(
    images: InstanceAwareImageService, instance: str
) -> None:
    some = Stores(("full", "second"), all_must_succeed=False)
    image = images.import_image(
        b"data", instance_id=instance, kind="snapshot", stores=some, deadline=60, **FORMATS
    )
    assert (image.status, image.stores) == ("active", "second")
    with pytest.raises(ImportFailed, match="not stored in full"):
        images.import_image(
            b"data",
            instance_id=instance,
            kind="snapshot",
            stores=Stores(("second", "full")),
            deadline=60,
            **FORMATS,
        )


def _fails(
    images: InstanceAwareImageService, instance: str, source: Any, stores: Stores
) -> ImportFailed:
    with pytest.raises(ImportFailed) as caught:
        images.import_image(
            source, instance_id=instance, kind="snapshot", stores=stores, deadline=60, **FORMATS
        )
    return caught.value


@pytest.mark.parametrize("may_be_some", [False, True])
@pytest.mark.parametrize("path", [None, "/whole", "/cut"])
def test_the_advice_after_a_failure_works(
    images: InstanceAwareImageService,
    instance: str,
    web: Scripted,
    path: str | None,
    may_be_some: bool,
) -> None:
    """The status of the image depends on the method, on the failure, and on chance."""
    stores = Stores(("full",), all_must_succeed=not may_be_some)
    source = CUT if path is None else f"{web.url}{path}"
    error = _fails(images, instance, source, Stores() if source == CUT else stores)
    said, left = str(error), images.get(error.image_id)
    assert error.image_status == left.status
    if left.status == "queued" and "os_glance_import_task" not in left:
        assert "import into it with image_id=" in said
        assert images.import_image(b"data", image_id=left.id, deadline=60).status == "active"
        return
    assert "delete it and import into a new image" in said
    assert ("locked for 60 minutes" in said) == (left.status == "queued")
    with pytest.raises(ImportFailed, match="nothing was created or sent"):
        images.import_image(b"data", image_id=left.id)
    images.delete(left.id)


def test_a_failed_plugin_leaves_an_image_that_can_only_be_deleted(
    images: InstanceAwareImageService, instance: str
) -> None:
    error = _fails(images, instance, CUT, Stores())
    assert error.image_status == "importing"
    assert "does not import into an image that is importing" in str(error)
    assert "import into it with image_id=" not in str(error)


def test_a_locked_image_is_refused_before_data_is_sent(
    images: InstanceAwareImageService, instance: str, web: Scripted
) -> None:
    stores = Stores(("full",), all_must_succeed=False)
    for _ in range(30):  # Glance keeps the lock after most such failures, not after each
        error = _fails(images, instance, f"{web.url}/whole", stores)
        if "os_glance_import_task" in images.get(error.image_id):
            break
    else:
        pytest.skip("this Glance removes its lock after every failure")
    with pytest.raises(ImportFailed, match=r"it is locked until .*, because a failed import"):
        images.import_image(b"data", image_id=error.image_id)
    assert images.get(error.image_id).status == "queued"


@pytest.fixture(scope="module")
def glance_with_one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    directory = tmp_path_factory.mktemp("one")
    staging = directory / "staging"
    store = directory / "store"
    configuration = f"""
[DEFAULT]
enabled_backends =
node_staging_uri = file://{staging}
enabled_import_methods = [glance-direct,copy-image]
[glance_store]
stores = file
default_store = file
default_backend =
filesystem_store_datadir = {store}
"""
    with ServedGlance(directory / "glance", glance_conf=configuration) as glance:
        yield glance


def test_stores_are_refused_for_a_glance_with_one_store(
    make_client: Maker, glance_with_one_store: ServedGlance, instance: str
) -> None:
    client = make_client(glance_with_one_store.url, SERVICE)
    images = InstanceAwareImageService(client, INSTALLATION)
    for stores in (Stores(("local",)), Stores(all_must_succeed=False)):
        with pytest.raises(StoreNotOffered, match="one store, without an ID") as caught:
            images.import_image(
                b"data", instance_id=instance, kind="snapshot", stores=stores, **FORMATS
            )
        assert caught.value.offered == ()
    assert not list(images.relations(instance))
    for stores in (Stores(), Stores(every=True)):
        image = images.import_image(
            b"data", instance_id=instance, kind="snapshot", stores=stores, deadline=60, **FORMATS
        )
        assert image.status == "active"
    with pytest.raises(StoreNotOffered, match="cannot be copied"):
        images.import_image(image_id=image.id, stores=Stores(every=True))
