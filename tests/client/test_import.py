"""Image import with each method of a real Glance, and failures of each."""

import gzip
import io
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest

from related_images.client import (
    Image,
    ImportFailed,
    ImportInvalid,
    ImportNotOffered,
    ImportUnfinished,
    InstanceAwareImageService,
    NotFound,
    RemoteImage,
    StoreNotOffered,
    Stores,
)
from related_images.client import importing as importing_module
from related_images.client.import_request import Source
from tests import servers
from tests.client import catalogue
from tests.client.clients import INSTALLATION, MAKERS, SERVICE, Maker
from tests.client.scripted import Asked, Reply, Scripted, serving
from tests.conftest import started
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

FORMATS: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}
QCOW2: dict[str, Any] = {"disk_format": "qcow2", "container_format": "bare"}
METHODS = "glance-direct", "web-download", "copy-image", "glance-download"
CONFIGURATION = """
[DEFAULT]
enabled_backends = local:file, second:file
enabled_import_methods = [{methods}]
[second]
filesystem_store_datadir = {directory}/second
[import_filtering_opts]
allowed_schemes = [http]
allowed_hosts = [127.0.0.1]
allowed_ports = [{ports}]
[image_import_opts]
image_import_plugins = [inject_image_metadata,image_decompression]
[inject_metadata_properties]
inject = imported:yes
[oslo_policy]
policy_file = {directory}/policy.yaml
"""
CONVERSION = """
[image_import_opts]
image_import_plugins = [inject_image_metadata,image_decompression,image_conversion]
[inject_metadata_properties]
inject = imported:yes
[image_conversion]
output_format = raw
"""


@pytest.fixture(scope="module")
def web() -> Iterator[Scripted]:
    with serving() as server:
        server.script = lambda asked: Reply(404 if asked.path == "/missing" else 200, b"hello")
        yield server


@contextmanager
def holding(web: Scripted) -> Iterator[None]:
    """Delay all downloads until the end of the block."""
    over, script = threading.Event(), web.script

    def answer(asked: Asked) -> Reply | None:
        over.wait(servers.PATIENCE)
        return script(asked)

    with mock.patch.object(web, "script", answer):
        try:
            yield
        finally:
            over.set()


@pytest.fixture(scope="module")
def importing(
    tmp_path_factory: pytest.TempPathFactory, web: Scripted, glance: ServedGlance
) -> Iterator[ServedGlance]:
    """A Glance with two stores and every import method; ``glance`` is in another region."""
    directory = tmp_path_factory.mktemp("importing")
    nobody = f"http://127.0.0.1:{servers.free_port()}"
    (directory / "policy.yaml").write_text('"copy_image": ""\n')
    configuration = CONFIGURATION.format(
        methods=",".join(METHODS),
        directory=directory,
        ports=",".join(url.rpartition(":")[2] for url in (web.url, glance.url, nobody)),
    )
    paste = catalogue.paste_with(directory, two=glance.url, down=nobody)
    with ServedGlance(directory, glance_conf=configuration, paste=paste) as served:
        yield served


@pytest.fixture(params=["glanceclient-endpoint", "openstacksdk"])
def make_client(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[str(request.param)]


@pytest.fixture
def images(make_client: Maker, importing: ServedGlance) -> InstanceAwareImageService:
    return InstanceAwareImageService(make_client(importing.url, SERVICE), INSTALLATION)


@pytest.fixture
def instance() -> str:
    return f"inst-{uuid4()}"


def _check_is_backup(images: InstanceAwareImageService, instance: str, image: Image) -> None:
    assert image.status == "active"
    assert [backup.id for backup in images.backups(instance)] == [image.id]


@pytest.mark.parametrize("form", ["bytes", "file", "path", "chunks"])
def test_glance_direct(
    images: InstanceAwareImageService, instance: str, form: str, tmp_path: Path
) -> None:
    (tmp_path / "image.raw").write_bytes(b"data")
    sources: dict[str, Source] = {
        "bytes": b"data",
        "file": io.BytesIO(b"data"),
        "path": tmp_path / "image.raw",
        "chunks": iter([b"da", b"ta"]),
    }
    seen: list[str] = []
    image = images.import_image(
        sources[form],
        instance_id=instance,
        kind="backup",
        method="glance-direct",
        deadline=60,
        progress=lambda image: seen.append(image.status),
        **FORMATS,
    )
    _check_is_backup(images, instance, image)
    assert (image.size, image.stores) == (4, "local")
    assert seen[-1] == "active"


def test_web_download(images: InstanceAwareImageService, instance: str, web: Scripted) -> None:
    image = images.import_image(
        f"{web.url}/data", instance_id=instance, kind="backup", deadline=60, **FORMATS
    )
    _check_is_backup(images, instance, image)
    assert image.size == 5


def test_import_plugins_change_the_image_and_not_the_relation(
    images: InstanceAwareImageService, instance: str
) -> None:
    image = images.import_image(
        gzip.compress(b"0123456789"), instance_id=instance, kind="backup", deadline=60, **FORMATS
    )
    _check_is_backup(images, instance, image)
    assert (image.size, image.imported) == (10, "yes")


def test_data_that_cannot_be_decompressed_fail(
    images: InstanceAwareImageService, instance: str
) -> None:
    cut = gzip.compress(b"0123456789" * 100)[:-10]
    with pytest.raises(ImportFailed, match="Task failed") as caught:
        images.import_image(cut, instance_id=instance, kind="backup", deadline=60, **FORMATS)
    assert caught.value.image_status != "active"
    assert [it.image_id for it in images.relations(instance)] == [caught.value.image_id]
    assert not list(images.backups(instance))


@pytest.fixture(scope="module")
def qemu_img() -> Iterator[str]:
    yield from started(lambda: nullcontext(servers._program("qemu-img")))


@pytest.fixture(scope="module")
def converting(tmp_path_factory: pytest.TempPathFactory, qemu_img: str) -> Iterator[ServedGlance]:
    """A Glance that decompresses imported data, and converts them to raw."""
    directory = tmp_path_factory.mktemp("converting")
    with ServedGlance(directory, glance_conf=CONVERSION) as served:
        yield served


def test_conversion_changes_the_image_and_not_the_relation(
    make_client: Maker, converting: ServedGlance, qemu_img: str, instance: str, tmp_path: Path
) -> None:
    images = InstanceAwareImageService(make_client(converting.url, SERVICE), INSTALLATION)
    data, raw, packed = bytes(range(256)) * 4096, tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(data)
    convert = [qemu_img, "convert", "-f", "raw", "-O", "qcow2", str(raw), str(packed)]
    subprocess.run(convert, check=True)
    queued = images.create(instance, kind="backup", **QCOW2)
    assert [it.image_id for it in images.relations(instance)] == [queued.id]
    assert not list(images.backups(instance))

    source = gzip.compress(packed.read_bytes())
    image = images.import_image(source, image_id=queued.id, deadline=60)
    _check_is_backup(images, instance, image)
    assert (image.disk_format, image.size, image.imported) == ("raw", len(data), "yes")
    assert converting.request("GET", f"/v2/images/{image.id}/file", SERVICE).body == data
    assert [it.image_id for it in images.relations(instance)] == [queued.id]


def test_data_that_cannot_be_converted_fail(
    make_client: Maker, converting: ServedGlance, instance: str
) -> None:
    images = InstanceAwareImageService(make_client(converting.url, SERVICE), INSTALLATION)
    with pytest.raises(ImportFailed, match="Task failed") as caught:
        images.import_image(b"raw", instance_id=instance, kind="backup", deadline=60, **QCOW2)
    assert caught.value.image_status == "queued"
    assert [it.image_id for it in images.relations(instance)] == [caught.value.image_id]
    assert not list(images.backups(instance))


def test_several_stores_and_a_copy(images: InstanceAwareImageService, instance: str) -> None:
    everywhere = images.import_image(
        b"data",
        instance_id=instance,
        kind="backup",
        stores=Stores(every=True),
        deadline=60,
        **FORMATS,
    )
    assert set(everywhere.stores.split(",")) == {"local", "second"}

    one = images.import_image(
        b"data",
        instance_id=instance,
        kind="snapshot",
        stores=Stores(("second",)),
        deadline=60,
        **FORMATS,
    )
    assert one.stores == "second"
    copied = images.import_image(image_id=one.id, stores=Stores(("local",)), deadline=60)
    assert set(copied.stores.split(",")) == {"local", "second"}
    again = images.import_image(image_id=one.id, stores=Stores(every=True), deadline=60)
    assert again.stores == copied.stores
    assert len(list(images.relations(instance))) == 2


def test_a_queued_image_gets_its_data(images: InstanceAwareImageService, instance: str) -> None:
    queued = images.create(instance, kind="backup", **FORMATS)
    assert not list(images.backups(instance))
    _check_is_backup(
        images, instance, images.import_image(b"data", image_id=queued.id, deadline=60)
    )


def test_a_failed_download_has_glances_message_and_keeps_the_relation(
    images: InstanceAwareImageService, instance: str, web: Scripted
) -> None:
    with pytest.raises(ImportFailed, match="Task failed") as caught:
        images.import_image(
            f"{web.url}/missing", instance_id=instance, kind="backup", deadline=60, **FORMATS
        )
    assert caught.value.image_status == "queued"
    (relation,) = images.relations(instance)
    assert relation.image_id == caught.value.image_id
    assert not list(images.backups(instance))


def test_a_url_that_glance_does_not_allow_is_explained_without_its_credentials(
    images: InstanceAwareImageService, instance: str
) -> None:
    url = "http://user:secret@127.0.0.1:9/image?signature=secret&copy=secret"
    with pytest.raises(ImportFailed, match="does not pass filtering") as caught:
        images.import_image(url, instance_id=instance, kind="snapshot", **FORMATS)
    said = str(caught.value)
    assert "[import_filtering_opts]" in said
    assert "ask an operator of Glance" in said
    assert "log" not in said
    everything = "".join(traceback.format_exception(caught.value))
    assert "http://***@127.0.0.1:9/image?signature=***&copy=***" in said
    assert "secret" not in everything.replace(url, "")
    assert [image.id for image in images.list(instance)] == [caught.value.image_id]
    assert caught.value.image_status == "queued"


@pytest.fixture
def remote(make_client: Maker, glance: ServedGlance) -> InstanceAwareImageService:
    """The client for the other region."""
    return InstanceAwareImageService(make_client(glance.url, SERVICE), INSTALLATION)


def test_glance_download(
    images: InstanceAwareImageService,
    remote: InstanceAwareImageService,
    importing: ServedGlance,
    instance: str,
) -> None:
    origin = remote.create(f"{instance}-origin", kind="snapshot", hw_disk_bus="scsi", **FORMATS)
    remote.upload(origin.id, b"from afar")
    related: list[list[str]] = []
    image = images.import_image(
        RemoteImage(origin.id, "TWO"),
        instance_id=instance,
        kind="backup",
        label="daily",
        deadline=60,
        progress=lambda _: related.append([it.image_id for it in images.relations(instance)]),
        **QCOW2,
    )
    _check_is_backup(images, instance, image)
    assert image.id != origin.id
    assert (image.size, image.disk_format, image.hw_disk_bus) == (9, "raw", "scsi")
    assert importing.request("GET", f"/v2/images/{image.id}/file", SERVICE).body == b"from afar"
    assert related[0] == [image.id]
    assert not list(remote.relations(instance))


def test_a_missing_image_of_another_region_fails_and_keeps_the_relation(
    images: InstanceAwareImageService, remote: InstanceAwareImageService, instance: str
) -> None:
    queued = remote.create(f"{instance}-origin", kind="snapshot", **FORMATS)
    unreachable = [
        RemoteImage(queued.id, "two"),
        RemoteImage(str(uuid4()), "two"),
        RemoteImage(str(uuid4()), "down"),
        RemoteImage(str(uuid4()), "elsewhere"),
    ]
    failed = []
    for source in unreachable:
        with pytest.raises(ImportFailed, match="Task failed") as caught:
            images.import_image(source, instance_id=instance, kind="backup", deadline=60, **FORMATS)
        assert caught.value.image_status == "queued"
        failed.append(caught.value.image_id)
    assert [it.image_id for it in images.relations(instance)] == failed[::-1]
    assert not list(images.backups(instance))


def _sent(source: io.BytesIO) -> bool:
    return source.tell() > 0


@pytest.mark.parametrize("missing", ["container_format", "disk_format"])
def test_an_image_without_a_format_is_refused_before_anything_is_created(
    images: InstanceAwareImageService, instance: str, missing: str
) -> None:
    given = {name: value for name, value in FORMATS.items() if name != missing}
    for source in (io.BytesIO(b"data"), "http://127.0.0.1/", RemoteImage(str(uuid4()), "two")):
        with pytest.raises(ImportInvalid, match=f"^{missing} is missing"):
            images.import_image(source, instance_id=instance, kind="snapshot", **given)
        assert not isinstance(source, io.BytesIO) or not _sent(source)
    assert not list(images.relations(instance))


@pytest.mark.parametrize("name", ["container_format", "disk_format"])
@pytest.mark.parametrize("wrong", ["nope", 7, ["raw"]], ids=repr)
def test_an_unsupported_format_is_refused_before_anything_is_created(
    images: InstanceAwareImageService, instance: str, name: str, wrong: Any
) -> None:
    source, given = io.BytesIO(b"data"), FORMATS | {name: wrong}
    with pytest.raises(ImportInvalid, match=f"^{name} is .*, but this Glance allows .*(raw|bare)"):
        images.import_image(source, instance_id=instance, kind="backup", **given)
    assert not _sent(source)
    assert not list(images.relations(instance))


def test_a_new_image_without_a_source_or_a_kind_is_refused_before_anything_is_created(
    images: InstanceAwareImageService, instance: str
) -> None:
    with pytest.raises(TypeError, match="a new image needs a source"):
        images.import_image(instance_id=instance, kind="backup", **FORMATS)
    with pytest.raises(TypeError, match="needs a kind"):
        images.import_image(b"data", instance_id=instance, **FORMATS)
    assert not list(images.relations(instance))


def test_an_existing_image_without_a_format_is_refused_before_anything_is_sent(
    images: InstanceAwareImageService, instance: str
) -> None:
    queued, source = (
        images.create(instance, kind="snapshot", disk_format="raw"),
        io.BytesIO(b"data"),
    )
    with pytest.raises(ImportFailed, match="has no container_format; set") as caught:
        images.import_image(source, image_id=queued.id)
    assert (caught.value.image_id, caught.value.image_status) == (queued.id, "queued")
    assert not _sent(source)
    assert images.get(queued.id).status == "queued"


def test_a_missing_or_inactive_image_cannot_be_copied(
    images: InstanceAwareImageService, instance: str
) -> None:
    with pytest.raises(NotFound) as absent:
        images.import_image(image_id=str(uuid4()), stores=Stores(every=True))
    assert absent.value.image_id is None
    queued = images.create(instance, kind="snapshot", **FORMATS)
    with pytest.raises(
        ImportFailed, match=r"copy-image \(no source was passed\) needs an image that is active"
    ) as caught:
        images.import_image(image_id=queued.id, stores=Stores(every=True))
    assert (caught.value.image_id, caught.value.image_status) == (queued.id, "queued")


def test_an_active_image_is_not_imported_into(
    images: InstanceAwareImageService, instance: str, web: Scripted
) -> None:
    image = images.import_image(
        b"data", instance_id=instance, kind="snapshot", deadline=60, **FORMATS
    )
    for source in (io.BytesIO(b"data"), f"{web.url}/data"):
        with pytest.raises(ImportFailed, match="needs an image that is queued") as caught:
            images.import_image(source, image_id=image.id)
        assert "delete" not in str(caught.value)
        assert not isinstance(source, io.BytesIO) or not _sent(source)
    assert images.get(image.id).status == "active"


def test_a_store_that_does_not_exist_is_refused_before_anything_is_created(
    images: InstanceAwareImageService, instance: str
) -> None:
    source, stores = io.BytesIO(b"data"), Stores(("local", "nosuch"))
    offered = "no writable store nosuch; the deployment offers local, second;"
    with pytest.raises(StoreNotOffered, match=offered) as caught:
        images.import_image(source, instance_id=instance, kind="snapshot", stores=stores, **FORMATS)
    assert caught.value.offered == ("local", "second")
    assert not _sent(source)
    assert not list(images.relations(instance))

    image = images.import_image(
        source, instance_id=instance, kind="snapshot", deadline=60, **FORMATS
    )
    with pytest.raises(StoreNotOffered, match=offered):
        images.import_image(image_id=image.id, stores=stores)
    assert images.get(image.id).stores == "local"


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"data")
    file.close()
    return file


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/var/tmp/image.raw", "must be a URL .* open binary file"),
        ("", "must be a URL"),
        ("ftp://host/image", "must be a URL .* scheme is 'ftp'"),
        ("file:///etc/passwd", "must be a URL"),
        ("https://", "must be a URL"),
        ("http://host/with space", "no spaces"),
        ("http://host:port/", "malformed host or port"),
        ("user:secret@host/image", "must be a URL"),
        (io.StringIO("data"), "open as text"),
        (_closed(), "closed"),
        (Path("no/image.raw"), "no file no/image.raw"),
        (Path("/"), "/ is a directory"),
        (bytearray(b"data"), "type bytearray cannot be sent"),
        ({}, "type dict cannot be sent"),
        (7, "type int cannot be sent; give bytes, .* a URL or a RemoteImage"),
        (RemoteImage("7", "two"), "'7' of the remote image is not a UUID"),
        (RemoteImage(str(UUID(int=7)), ""), "no region"),
        (RemoteImage(str(UUID(int=7)), "two", "private"), "not one of public, internal, admin"),
    ],
    # the names must be equal in two processes
    ids=lambda value: type(value).__name__ if isinstance(value, io.IOBase) else str(value),
)
def test_a_source_that_cannot_be_imported_is_refused_before_anything_is_created(
    images: InstanceAwareImageService, instance: str, source: Any, said: str
) -> None:
    with pytest.raises(ImportInvalid, match=said) as caught:
        images.import_image(source, instance_id=instance, kind="snapshot", **FORMATS)
    assert "secret" not in str(caught.value)
    assert not list(images.relations(instance))


def test_a_file_that_is_not_open_for_reading_is_refused(
    images: InstanceAwareImageService, instance: str, tmp_path: Path
) -> None:
    with (
        (tmp_path / "image").open("wb") as file,
        pytest.raises(ImportInvalid, match="not open for reading"),
    ):
        images.import_image(file, instance_id=instance, kind="snapshot", **FORMATS)
    assert not list(images.relations(instance))


@pytest.mark.parametrize("deadline", [-1, float("nan"), None, "60"])
def test_a_malformed_deadline_is_refused(
    images: InstanceAwareImageService, instance: str, deadline: Any
) -> None:
    with pytest.raises(ImportInvalid, match="deadline is"):
        images.import_image(
            b"data", instance_id=instance, kind="snapshot", deadline=deadline, **FORMATS
        )
    with pytest.raises(ImportInvalid, match="deadline is"):
        images.wait_for_import(str(uuid4()), deadline=deadline)
    assert not list(images.relations(instance))


def test_contradictory_stores_are_refused() -> None:
    with pytest.raises(TypeError, match=r"such as \('fast',\)"):
        Stores("fast")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="either ids or every"):
        Stores(("fast",), every=True)


def test_a_missing_method_is_refused_before_anything_is_created(
    make_client: Maker, glance: ServedGlance, instance: str
) -> None:
    images = InstanceAwareImageService(make_client(glance.url, SERVICE), INSTALLATION)
    with pytest.raises(ImportNotOffered, match="offers glance-direct, web-download") as caught:
        images.import_image(
            RemoteImage(str(uuid4()), "elsewhere"), instance_id=instance, kind="snapshot", **FORMATS
        )
    assert caught.value.offered == ("glance-direct", "web-download")
    with pytest.raises(
        ImportNotOffered, match="needs the method glance-direct, the requested method is copy"
    ):
        images.import_image(
            b"data", instance_id=instance, kind="snapshot", method="copy-image", **FORMATS
        )
    with pytest.raises(
        ImportNotOffered, match="a copy \\(no source was passed\\) needs the method copy-image"
    ):
        images.import_image(image_id=str(uuid4()))
    assert not list(images.relations(instance))


def test_contradictory_arguments_are_refused(images: InstanceAwareImageService) -> None:
    with pytest.raises(TypeError, match="either"):
        images.import_image(b"data")
    with pytest.raises(TypeError, match="either"):
        images.import_image(b"data", instance_id="i", image_id=str(uuid4()))
    with pytest.raises(TypeError, match="name can only"):
        images.import_image(b"data", image_id=str(uuid4()), name="x")
    with pytest.raises(TypeError, match="label can only"):
        images.import_image(b"data", image_id=str(uuid4()), properties={"label": "x"})
    with pytest.raises(TypeError, match="kind, label can only"):
        images.import_image(b"data", image_id=str(uuid4()), kind="backup", label="daily")
    with pytest.raises(TypeError, match="a new image needs a source"):
        images.import_image(instance_id="i", kind="snapshot", **FORMATS)


def test_properties_of_an_imported_image_may_have_the_names_of_arguments(
    images: InstanceAwareImageService, instance: str
) -> None:
    said = {"method": "by hand", "deadline": "never", "label": "red"}
    image = images.import_image(
        b"data",
        instance_id=instance,
        kind="snapshot",
        label="daily",
        deadline=60,
        properties=said,
        **FORMATS,
    )
    assert {name: image[name] for name in said} == said
    assert [it.label for it in images.relations(instance)] == ["daily"]


def test_the_import_continues_after_the_deadline(
    images: InstanceAwareImageService, instance: str, web: Scripted
) -> None:
    unfinished = pytest.raises(ImportUnfinished, match="did not end within 0 seconds")
    with holding(web), unfinished as caught:
        images.import_image(
            f"{web.url}/data", instance_id=instance, kind="backup", deadline=0, **FORMATS
        )
    assert [image.id for image in images.list(instance)] == [caught.value.image_id]
    assert f"wait_for_import('{caught.value.image_id}')" in str(caught.value)


def test_another_process_can_continue_to_wait(
    images: InstanceAwareImageService,
    make_client: Maker,
    importing: ServedGlance,
    instance: str,
    web: Scripted,
) -> None:
    with holding(web), pytest.raises(ImportUnfinished) as caught:
        images.import_image(
            f"{web.url}/data", instance_id=instance, kind="backup", deadline=0, **FORMATS
        )
    other = InstanceAwareImageService(make_client(importing.url, SERVICE), INSTALLATION)
    seen: list[str] = []
    image = other.wait_for_import(
        caught.value.image_id, deadline=60, progress=lambda image: seen.append(image.status)
    )
    _check_is_backup(images, instance, image)
    assert seen[-1] == "active"
    assert other.wait_for_import(image.id, deadline=0).id == image.id


def test_waiting_fails_for_a_failed_import_no_import_and_no_image(
    images: InstanceAwareImageService, instance: str, web: Scripted
) -> None:
    with holding(web), pytest.raises(ImportUnfinished) as unfinished:
        images.import_image(
            f"{web.url}/missing", instance_id=instance, kind="snapshot", deadline=0, **FORMATS
        )
    with pytest.raises(ImportFailed, match="Task failed") as failed:
        images.wait_for_import(unfinished.value.image_id, deadline=60)
    assert not isinstance(failed.value, ImportUnfinished)
    queued = images.create(instance, kind="snapshot", **FORMATS)
    with pytest.raises(ImportFailed, match="no import into it is in progress"):
        images.wait_for_import(queued.id)
    with pytest.raises(NotFound) as absent:
        images.wait_for_import(str(uuid4()))
    assert absent.value.image_id is None


class Clock:
    """A clock that advances only by ``sleep``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("deadline", [0.05, 1.0, 2.0, 7.5])
def test_the_last_poll_is_at_the_deadline(
    images: InstanceAwareImageService,
    instance: str,
    web: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    deadline: float,
) -> None:
    clock = Clock()
    monkeypatch.setattr(importing_module, "time", clock)
    looks: list[float] = []
    with holding(web), pytest.raises(ImportUnfinished):
        images.import_image(
            f"{web.url}/data",
            instance_id=instance,
            kind="snapshot",
            deadline=deadline,
            progress=lambda _: looks.append(clock.now - 1000),
            **FORMATS,
        )
    assert looks[0] == 0
    assert looks[-1] == pytest.approx(deadline)
    assert len(looks) > 1
