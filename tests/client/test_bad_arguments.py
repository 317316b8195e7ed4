"""The client checks its arguments before it sends a request."""

import inspect
import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from keystoneauth1.adapter import Adapter

from related_images.client import (
    ImportInvalid,
    InstanceAwareImageService,
    InstanceRef,
    NewOrigin,
    RelationsClient,
    Stores,
    UploadInvalid,
)
from related_images.errors import (
    BadInput,
    FieldInvalid,
    ImageIdMalformed,
    KindUnknown,
    LabelMalformed,
    ParameterMalformed,
    ParameterUnknown,
    RelatedImagesError,
    ResourceTypeUnknown,
    TupleMalformed,
)
from tests.client.clients import INSTALLATION, SERVICE, session
from tests.client.scripted import Scripted, shown
from tests.servers import ServedGlance

IMAGE = "8a6ff7cb-1a1f-4bd6-9a3a-4e0b0f2c2f3d"
REF = InstanceRef(INSTALLATION, "inst-1")
FORMATS: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}
Service = InstanceAwareImageService
RouteRequest = Callable[[Any], Any]


@pytest.fixture
def service(scripted: Scripted) -> Service:
    return Service(Adapter(session(scripted.url, SERVICE), service_type="image"), INSTALLATION)


@pytest.fixture
def relations(scripted: Scripted) -> RelationsClient:
    return RelationsClient(Adapter(session(scripted.url, SERVICE), service_type="image"))


def refuses(
    call: Callable[[], object], error: type[RelatedImagesError], said: str, scripted: Scripted
) -> None:
    with pytest.raises(error, match=said) as refused:
        call()
    assert refused.value.code == error.code
    assert not scripted.asked


CONDITIONS: Final[list[tuple[dict[str, Any], type[BadInput], str]]] = [
    ({"kind": "copy"}, KindUnknown, "'copy' .* allowed are snapshot, backup, shelved, boot, use"),
    ({"label": "two words"}, LabelMalformed, "'two words' is malformed; give 1 to 64"),
    ({"source": "user"}, ParameterMalformed, "relation_source='user' is unknown; allowed are"),
    ({"created_after": "soon"}, ParameterMalformed, "relation_created_after='soon' is not an ISO"),
    ({"created_before": 7}, ParameterMalformed, "relation_created_before=7 is not an ISO 8601"),
    ({"in_use": "yes"}, ParameterMalformed, "relation_in_use='yes' is malformed; give true or"),
    ({"descends_from": "ubuntu"}, ImageIdMalformed, "'ubuntu' is not a UUID"),
]


@pytest.mark.parametrize("instance_id", ["inst-1", None])
@pytest.mark.parametrize(("conditions", "error", "said"), CONDITIONS)
def test_a_malformed_condition_of_an_image_list_is_refused(
    service: Service,
    relations: RelationsClient,
    scripted: Scripted,
    instance_id: str | None,
    conditions: dict[str, Any],
    error: type[BadInput],
    said: str,
) -> None:
    refuses(lambda: service.list(instance_id, **conditions), error, said, scripted)
    refuses(lambda: relations.images(**conditions), error, said, scripted)


def test_an_image_list_without_conditions_is_refused(
    relations: RelationsClient, scripted: Scripted
) -> None:
    with pytest.raises(TypeError, match="one of installation_uuid, resource_type, kind, label"):
        relations.images(status="active")
    assert not scripted.asked


FILTERS: Final[list[tuple[dict[str, Any], type[BadInput], str]]] = [
    ({"knd": "backup"}, ParameterUnknown, "'knd' is unknown; allowed are: .*kind, label"),
    ({"marker": "m"}, ParameterUnknown, "'marker' is unknown"),
    ({"instance_id": "a b"}, TupleMalformed, "'a b' is malformed; give 1 to 255 of the characters"),
    ({"image_id": "x"}, ImageIdMalformed, "'x' is not a UUID"),
    ({"image_id": uuid4()}, ImageIdMalformed, "is not a UUID in lower case"),
    ({"project_id": ""}, ParameterMalformed, "project_id='' is malformed; give 1 to 255 printable"),
    ({"project_id": 7}, ParameterMalformed, "project_id=7 is malformed"),
    ({"kind": "copy"}, KindUnknown, "'copy' .* allowed are snapshot, backup, shelved, boot, use"),
    ({"kind": ["backup"]}, KindUnknown, "allowed are snapshot"),
    ({"label": "two words"}, LabelMalformed, "'two words' is malformed; give 1 to 64"),
    ({"source": "user"}, ParameterMalformed, "source='user' is unknown; allowed are: service, "),
    (
        {"created_after": "yesterday"},
        ParameterMalformed,
        "created_after='yesterday' is not an ISO 8601 time",
    ),
    (
        {"created_before": 1767225600},
        ParameterMalformed,
        "created_before=1767225600 is not an ISO 8601 time",
    ),
    ({"in_use": "yes"}, ParameterMalformed, "in_use='yes' is malformed; give true or false"),
    ({"in_use": 1}, ParameterMalformed, "in_use=1 is malformed; give true or false"),
]


@pytest.mark.parametrize("method", ["relations", "instances"])
@pytest.mark.parametrize(("filters", "error", "said"), FILTERS)
def test_a_malformed_filter_is_refused(
    relations: RelationsClient,
    scripted: Scripted,
    method: str,
    filters: dict[str, Any],
    error: type[BadInput],
    said: str,
) -> None:
    refuses(lambda: getattr(relations, method)(**filters), error, said, scripted)


@pytest.mark.parametrize("name", ["service", "relations"])
def test_latest_before_is_a_time_and_only_a_filter_of_instances(
    request: pytest.FixtureRequest, scripted: Scripted, name: str
) -> None:
    client = request.getfixturevalue(name)
    said = "^latest_before='yesterday' is not an ISO 8601 time such as 2026-01-31T12:00:00Z$"
    late = {"latest_before": "yesterday"}
    refuses(lambda: client.instances(**late), ParameterMalformed, said, scripted)
    known = "'latest_before' is unknown"
    now = {"latest_before": datetime.now(UTC)}
    refuses(lambda: client.relations(**now), ParameterUnknown, known, scripted)


@pytest.mark.parametrize("name", ["service", "relations"])
@pytest.mark.parametrize("depth", [0, -1, 1.5, "x", True, 10**9], ids=repr)
def test_a_depth_is_a_number_of_generations(
    request: pytest.FixtureRequest, scripted: Scripted, name: str, depth: Any
) -> None:
    client = request.getfixturevalue(name)
    said = "^depth=.* is not a whole number from 1 to 999999999$"
    refuses(lambda: client.descendants(IMAGE, depth=depth), ParameterMalformed, said, scripted)
    refuses(lambda: client.dependents(IMAGE, depth=depth), ParameterMalformed, said, scripted)


CALLS: Final[dict[str, tuple[RouteRequest, type[BadInput], str]]] = {
    "create instance": (lambda s: s.create("a b", kind="backup"), TupleMalformed, "'a b'"),
    "create kind": (
        lambda s: s.create("i", kind="boot"),
        KindUnknown,
        "are snapshot, backup, shelved$",
    ),
    "create no kind": (lambda s: s.create("i", kind=None), KindUnknown, "None"),
    "create label": (lambda s: s.create("i", kind="backup", label=""), LabelMalformed, "''"),
    "create id": (lambda s: s.create("i", kind="backup", id="x"), ImageIdMalformed, "'x'"),
    "get": (lambda s: s.get("x"), ImageIdMalformed, "'x'"),
    "upload": (lambda s: s.upload("x", b""), ImageIdMalformed, "'x'"),
    "list": (lambda s: s.list("i", kind="copy"), KindUnknown, "'copy'"),
    "backups": (lambda s: s.backups("i", "a b"), LabelMalformed, "'a b'"),
    "delete": (lambda s: s.delete("../tasks"), ImageIdMalformed, "'../tasks'"),
    "delete of": (lambda s: s.delete(IMAGE, instance_id="a b"), TupleMalformed, "'a b'"),
    "force": (
        lambda s: s.delete(IMAGE, force="false"),
        ParameterMalformed,
        "force='false' is neither True nor False",
    ),
    "attach image": (lambda s: s.attach("i", "x", kind="boot"), ImageIdMalformed, "'x'"),
    "attach kind": (lambda s: s.attach("i", IMAGE, kind="copy"), KindUnknown, "'copy'"),
    "attach project": (
        lambda s: s.attach("i", IMAGE, kind="boot", instance_project_id=7),
        FieldInvalid,
        "instance_project_id=7 is malformed",
    ),
    "detach": (lambda s: s.detach("i", IMAGE, kind="copy"), KindUnknown, "'copy'"),
    "instance_ended": (lambda s: s.instance_ended("a b"), TupleMalformed, "'a b'"),
    "ancestry": (lambda s: s.ancestry("x"), ImageIdMalformed, "'x'"),
    "descendants": (lambda s: s.descendants("x"), ImageIdMalformed, "'x'"),
    "dependents": (lambda s: s.dependents("x"), ImageIdMalformed, "'x'"),
    "dependents live": (
        lambda s: s.dependents(IMAGE, live="no"),
        ParameterMalformed,
        "live='no' is neither True nor False",
    ),
    "dependents type": (
        lambda s: s.dependents(IMAGE, resource_type="a b"),
        ResourceTypeUnknown,
        "'a b'",
    ),
    "dependents unknown": (
        lambda s: s.dependents(IMAGE, kind="boot"),
        ParameterUnknown,
        "'kind' is unknown; allowed are: live, depth, resource_type, project_id",
    ),
    "dependent_summary": (lambda s: s.dependent_summary("x"), ImageIdMalformed, "'x'"),
    "usages": (lambda s: s.usages([IMAGE] * 99 + ["x"]), ImageIdMalformed, "'x'"),
    "usages of one": (
        lambda s: s.usages(IMAGE),
        ParameterMalformed,
        r"is not an iterable of image IDs; give one image as \[image_id\]",
    ),
    "usages of none": (lambda s: s.usages(None), ParameterMalformed, "image_ids=None"),
    "wait_for_import": (lambda s: s.wait_for_import("x"), ImageIdMalformed, "'x'"),
    "import": (
        lambda s: s.import_image(b"", instance_id="a b", kind="backup", **FORMATS),
        TupleMalformed,
        "'a b'",
    ),
    "import kind": (
        lambda s: s.import_image(b"", instance_id="i", kind="boot", **FORMATS),
        KindUnknown,
        "'boot'",
    ),
    "import into": (lambda s: s.import_image(b"", image_id="x"), ImageIdMalformed, "'x'"),
}
RELATIONS_CALLS: Final[dict[str, tuple[RouteRequest, type[BadInput], str]]] = {
    "attach": (lambda r: r.attach("i", IMAGE, "boot"), TupleMalformed, "'i' is not an InstanceRef"),
    "detach": (lambda r: r.detach("i", IMAGE, "boot"), TupleMalformed, "'i' is not an InstanceRef"),
    "roll_back": (
        lambda r: r.roll_back(REF, IMAGE, "boot", "yesterday"),
        ParameterMalformed,
        "^recorded_at='yesterday' is not an ISO 8601 time",
    ),
    "instance": (lambda r: r.instance("i"), TupleMalformed, "'i' is not an InstanceRef"),
    "instance_ended": (lambda r: r.instance_ended(None), TupleMalformed, "None is not an Inst"),
    "remove_origin": (
        lambda r: r.remove_origin("i", ""),
        TupleMalformed,
        "'i' is not an InstanceRef",
    ),
    "remove_origin since": (
        lambda r: r.remove_origin(REF, "noon"),
        ParameterMalformed,
        "^since='noon' is not an ISO 8601 time",
    ),
    "delete_image": (lambda r: r.delete_image(IMAGE, force=1), ParameterMalformed, "force=1"),
    "relations_of_image": (lambda r: r.relations_of_image("x"), ImageIdMalformed, "'x'"),
}


@pytest.mark.parametrize(("call", "error", "said"), CALLS.values(), ids=CALLS)
def test_a_malformed_argument_of_the_service_is_refused(
    service: Service, scripted: Scripted, call: RouteRequest, error: type[BadInput], said: str
) -> None:
    refuses(lambda: call(service), error, said, scripted)


@pytest.mark.parametrize(("call", "error", "said"), RELATIONS_CALLS.values(), ids=RELATIONS_CALLS)
def test_a_malformed_argument_of_the_relations_client_is_refused(
    relations: RelationsClient,
    scripted: Scripted,
    call: RouteRequest,
    error: type[BadInput],
    said: str,
) -> None:
    refuses(lambda: call(relations), error, said, scripted)


def test_a_kind_has_no_default(service: Service, scripted: Scripted) -> None:
    create: Any = service.create
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'kind'"):
        create("i", knd="backup")
    for method in (service.create, service.attach, service.detach, RelationsClient.attach):
        assert inspect.signature(method).parameters["kind"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="a new image needs a kind: snapshot or backup"):
        service.import_image(b"", instance_id="i", **FORMATS)
    assert not scripted.asked


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda s: s.create("i", kind="backup", lable="daily"), "label"),
        (lambda s: s.create("i", kind="backup", property={"a": "b"}), "properties"),
        (lambda s: s.list("i", knd="backup"), "kind"),
        (lambda s: s.list("i", pagesize=7), "page_size"),
        (lambda s: s.backups("i", limt=1), "limit"),
        (lambda s: s.import_image(b"", instance_id="i", knd="backup", **FORMATS), "kind"),
        (lambda s: s.import_image(b"", instance_id="i", kind="backup", store="fast"), "stores"),
        (lambda s: s.import_image(b"", instance_id="i", kind="backup", dead_line=7), "deadline"),
    ],
)
def test_a_misspelled_argument_is_not_a_property(
    service: Service, scripted: Scripted, call: RouteRequest, meant: str
) -> None:
    with pytest.raises(TypeError, match=f"; did you mean {meant}\\? .* properties={{'"):
        call(service)
    assert not scripted.asked


def test_properties_take_any_name(service: Service, scripted: Scripted) -> None:
    scripted.script = lambda asked: shown(json.loads(asked.body), 201, X_Relation_Recorded="backup")
    image = service.create("i", kind="backup", properties={"lable": "x", "knd": "y"})
    assert (image["lable"], image["knd"]) == ("x", "y")


def _described(definition: dict[str, Any]) -> set[str]:
    """Return the properties of images in a metadata definition of Glance."""
    prefixes = [
        associated.get("prefix", "")
        for associated in definition.get("resource_type_associations", [])
        if associated["name"] == "OS::Glance::Image"
    ]
    of_objects = [it["properties"] for it in definition.get("objects", [])]
    names = set().union(definition.get("properties", {}), *of_objects)
    return {prefix + name for prefix in prefixes for name in names}


def test_no_property_in_glances_schema_is_similar_to_an_argument(
    service: Service, scripted: Scripted, glance: ServedGlance
) -> None:
    names = set(glance.request("GET", "/v2/schemas/image", SERVICE).json["properties"])
    for path in (Path(sys.prefix) / "etc" / "glance" / "metadefs").glob("*.json"):
        names |= _described(json.loads(path.read_text()))
    assert len(names) > 100
    names -= {"id", "self"}  # the one is checked, the other is the first parameter of a method
    scripted.script = lambda asked: shown(json.loads(asked.body), 201, X_Relation_Recorded="backup")
    for name in names:
        service.create("i", kind="backup", **{name: "x"})  # type: ignore[arg-type]
        service.list("i", **{name: "x"})  # type: ignore[arg-type]
        new: dict[str, Any] = {"instance_id": "i", "kind": "copy", name: "x"}
        with pytest.raises((KindUnknown, ImportInvalid)):
            service.import_image(b"", **new)


class Opened(type(Path())):  # type: ignore[misc]
    """A path that records the files opened from it."""

    files: Final[list[io.BufferedReader]] = []

    def open(self, *args: Any, **kwargs: Any) -> Any:
        file = super().open(*args, **kwargs)
        self.files.append(file)
        return file


@pytest.mark.parametrize("status", [204, 409])
def test_a_path_is_opened_sent_with_its_size_and_closed(
    service: Service, scripted: Scripted, tmp_path: Path, status: int
) -> None:
    path = Opened(tmp_path / "image.raw")
    path.write_bytes(b"x" * 70_000)
    Opened.files.clear()
    scripted.script = lambda asked: shown({}, status)
    if status == 204:
        service.upload(IMAGE, path)
    else:
        with pytest.raises(RelatedImagesError):
            service.upload(IMAGE, path)
    (put,) = scripted.of("PUT", f"/v2/images/{IMAGE}/file")
    assert put.headers["content-length"] == "70000"
    assert put.body == b"x" * 70_000
    assert [file.closed for file in Opened.files] == [True]


class Readable:
    """An object with a ``read`` method that is not iterable."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


def test_an_object_with_only_a_read_method_is_sent(glance: ServedGlance) -> None:
    service = Service(Adapter(session(glance.url, SERVICE), service_type="image"), INSTALLATION)
    image = service.create("i", kind="snapshot", **FORMATS)
    service.upload(image.id, Readable(b"x" * 70_000))  # type: ignore[arg-type]
    assert service.get(image.id).size == 70_000


def _text_file() -> io.TextIOBase:
    return io.StringIO("data")


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"data")
    file.close()
    return file


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "image.raw",
            r"a str cannot be sent; give Path\(…\) for the name of a file, or text.encode\(\)",
        ),
        (Path("no/image.raw"), "there is no file no/image.raw"),
        (Path("/"), "/ is a directory; give the path of a file"),
        (_text_file(), "the file is open as text; open it with mode 'rb'"),
        (_closed(), "the file is closed; open it with mode 'rb'"),
        (None, "data of type NoneType cannot be sent; give bytes, an open binary file, a Path or"),
        (7, "data of type int cannot be sent"),
        (bytearray(b"data"), "data of type bytearray cannot be sent"),
        (memoryview(b"data"), "data of type memoryview cannot be sent"),
        ({"a": b"data"}, "data of type dict cannot be sent"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_that_cannot_be_sent_is_refused(
    service: Service, scripted: Scripted, data: Any, said: str
) -> None:
    refuses(
        lambda: service.upload(IMAGE, data),
        UploadInvalid,
        f"^{said}.*; nothing was sent$",
        scripted,
    )


def test_a_chunk_of_another_type_than_bytes_aborts_the_upload(glance: ServedGlance) -> None:
    service = Service(Adapter(session(glance.url, SERVICE), service_type="image"), INSTALLATION)
    image = service.create("i", kind="snapshot", **FORMATS)
    with pytest.raises(UploadInvalid, match="an item of the data has the type str"):
        service.upload(image.id, iter([b"data", "text"]))  # type: ignore[arg-type]
    assert service.get(image.id).status != "active"


IMPORTS: Final[dict[str, tuple[dict[str, Any], type[RelatedImagesError], str]]] = {
    "scheme": ({"source": "ftp://host/image"}, ImportInvalid, "scheme is 'ftp'"),
    "path": ({"source": Path("no.raw")}, ImportInvalid, "there is no file no.raw"),
    "deadline": ({"deadline": "1h"}, ImportInvalid, "deadline is '1h'"),
    "progress": ({"progress": 7}, ImportInvalid, "progress is 7 and must be a function"),
    "stores": ({"stores": "fast"}, ImportInvalid, r"'fast' and must be Stores\(ids="),
    "no format": ({"disk_format": None}, ImportInvalid, "^disk_format is missing"),
}


@pytest.mark.parametrize(("wrong", "error", "said"), IMPORTS.values(), ids=IMPORTS)
def test_a_malformed_import_is_refused(
    service: Service,
    scripted: Scripted,
    wrong: dict[str, Any],
    error: type[RelatedImagesError],
    said: str,
) -> None:
    given = {"source": b"", "instance_id": "i", "kind": "backup", **FORMATS, **wrong}
    refuses(lambda: service.import_image(**given), error, said, scripted)


def test_an_import_without_a_source_is_refused(service: Service, scripted: Scripted) -> None:
    new = {"instance_id": "i", "kind": "backup", **FORMATS}
    with pytest.raises(TypeError, match=r"^a new image needs a source; to copy"):
        service.import_image(**new)
    with pytest.raises(TypeError, match="and a source unless the image is to be copied"):
        service.import_image()
    with pytest.raises(TypeError, match="must be a tuple of store IDs"):
        service.import_image(b"", stores=Stores("fast"), **new)  # type: ignore[arg-type]
    assert not scripted.asked


NO_REF: Final[Any] = "inst-1"
NO_TIME: Final[Any] = "noon"


@pytest.mark.parametrize(
    ("origin", "error", "said"),
    [
        (REF, ParameterMalformed, r"is not a NewOrigin\(instance, source, since\)"),
        (NewOrigin(NO_REF, None, datetime.now(UTC)), TupleMalformed, "is not an InstanceRef"),
        (NewOrigin(REF, None, NO_TIME), ParameterMalformed, "since"),
        (NewOrigin(REF, None, datetime.now(UTC), ""), FieldInvalid, "project_id"),
    ],
)
def test_malformed_origins(
    relations: RelationsClient, scripted: Scripted, origin: Any, error: type[BadInput], said: str
) -> None:
    good = NewOrigin(REF, None, datetime.now(UTC))
    refuses(lambda: relations.record_origins([good, origin]), error, said, scripted)
