"""Each malformed request gets its own error, and has no effect."""

from typing import Any

import pytest

from tests import wsgi
from tests.filters import StubGlance, instance_headers
from tests.middleware.conftest import MakeFilter

UUID = "19175c19-2809-4e50-868f-186553dd7470"
OTHER = "29175c19-2809-4e50-868f-186553dd7470"
SERVICE = wsgi.identity("nova", "p", "service")
ADMIN = wsgi.identity("admin", "p", "admin", "service")
TUPLE = instance_headers(UUID, "i-1")
ATTACH = {"installation_uuid": UUID, "instance_id": "i", "image_id": UUID, "kind": "backup"}
Headers = dict[str, str]

TUPLES: list[tuple[Headers, str]] = [
    ({"X-Installation-UUID": UUID}, "tuple.incomplete"),
    ({"X-Instance-ID": "i-1"}, "tuple.incomplete"),
    ({"X-Relation-Kind": "backup"}, "tuple.incomplete"),
    ({"X-Relation-Label": "daily"}, "tuple.incomplete"),
    ({"X-Installation-UUID": "nova"} | {"X-Instance-ID": "i"}, "tuple.malformed"),
    (instance_headers(UUID + "\n", "i"), "tuple.malformed"),
    (instance_headers(UUID.replace("-", ""), "i"), "tuple.malformed"),
    (instance_headers(UUID, ""), "tuple.malformed"),
    (instance_headers(UUID, "i" * 256), "tuple.malformed"),
    (instance_headers(UUID, "i\n"), "tuple.malformed"),
    (instance_headers(UUID, "i i"), "tuple.malformed"),
    (instance_headers(UUID, "ï".encode().decode("latin-1")), "tuple.malformed"),
    (instance_headers(UUID, "i-1,i-1"), "tuple.malformed"),
    (instance_headers(f"{UUID},{UUID}", "i"), "tuple.malformed"),
    (TUPLE | {"X-Relation-Kind": "image"}, "kind.unknown"),
    (TUPLE | {"X-Relation-Kind": "backup,backup"}, "kind.unknown"),
    (TUPLE | {"X-Relation-Kind": "BACKUP"}, "kind.unknown"),
    (TUPLE | {"X-Relation-Label": "l" * 65}, "label.malformed"),
    (TUPLE | {"X-Relation-Label": ""}, "label.malformed"),
    (TUPLE | {"X-Relation-Label": "täglich"}, "label.malformed"),
]


def code_of(answer: Any, status: int = 400) -> str:
    error = answer.json["error"]
    assert answer.status == error["status"] == status
    assert set(error) == {"status", "code", "title", "message", "request_id"}
    return str(error["code"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/v2/images"), ("GET", "/v2/images"), ("DELETE", f"/v2/images/{UUID}")),
        *(("PUT", f"/v2/images/{UUID}/file"), ("GET", "/v2/relations"), ("GET", "/elsewhere")),
    ],
)
@pytest.mark.parametrize(("sent_headers", "code"), TUPLES)
def test_malformed_instance_headers_are_refused_on_every_request(
    make_filter: MakeFilter,
    stub_glance: StubGlance,
    method: str,
    path: str,
    sent_headers: Headers,
    code: str,
) -> None:
    answer = wsgi.call(
        make_filter(stub_glance), method, path, SERVICE | sent_headers, {"name": "n"}
    )
    assert code_of(answer) == code
    assert stub_glance.seen == []


BODIES: list[tuple[bytes, str, int]] = [
    (b"", "body.malformed", 400),
    (b"not json", "body.malformed", 400),
    (b"\xff\xfe", "body.malformed", 400),
    (b"[]", "body.malformed", 400),
    (b'"text"', "body.malformed", 400),
    (b"null", "body.malformed", 400),
    (b'{"name": ', "body.malformed", 400),
    (b'{"size": ' + b"1" * 5000 + b"}", "body.malformed", 400),
    (b"[" * 100_000, "body.malformed", 400),
    (b'{"name": "' + b"x" * (1024 * 1024) + b'"}', "body.too-large", 413),
]
IMAGE_BODIES: list[tuple[bytes, str, int]] = [
    (b'{"id": "x"}', "image.id-malformed", 400),
    (b'{"id": null}', "image.id-malformed", 400),
    (b'{"id": ["' + UUID.encode() + b'"]}', "image.id-malformed", 400),
    (b'{"id": "' + UUID.encode() + b'\\n"}', "image.id-malformed", 400),
    (b'{"id": "' + UUID.upper().encode() + b'"}', "image.id-malformed", 400),
    (b'{"owner": ""}', "body.field-invalid", 400),
    (b'{"owner": 7}', "body.field-invalid", 400),
    (b'{"owner": "a\\u0000b"}', "body.field-invalid", 400),
    (b'{"owner": "\\ud800"}', "body.field-invalid", 400),
    (b'{"owner": "' + b"x" * 256 + b'"}', "body.field-invalid", 400),
]


@pytest.mark.parametrize(("body", "code", "status"), BODIES + IMAGE_BODIES)
def test_malformed_body_creates_no_image_and_no_relation(
    make_filter: MakeFilter, stub_glance: StubGlance, body: bytes, code: str, status: int
) -> None:
    guarded = make_filter(stub_glance)
    answer = wsgi.call(guarded, "POST", "/v2/images", SERVICE | TUPLE, body)
    assert code_of(answer, status) == code
    assert stub_glance.seen == []
    assert wsgi.call(guarded, "GET", "/v2/relations", ADMIN).json["relations"] == []


@pytest.mark.parametrize("path", ["/v2/images", "/v2/relations", "/v2/installations"])
def test_incomplete_body_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, path: str
) -> None:
    sent_headers = TUPLE | {"Content-Length": "99"}
    answer = wsgi.call(
        make_filter(stub_glance), "POST", path, ADMIN | sent_headers, b'{"name": "n"}'
    )
    assert code_of(answer) == "body.incomplete"
    assert stub_glance.seen == []


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"installation_uuid": "x"}, "tuple.malformed"),
    ({"installation_uuid": None}, "tuple.malformed"),
    ({"instance_id": "i\n"}, "tuple.malformed"),
    ({"instance_id": 7}, "tuple.malformed"),
    ({"image_id": "x"}, "image.id-malformed"),
    ({"image_id": UUID.upper()}, "image.id-malformed"),
    ({"kind": "image"}, "kind.unknown"),
    ({"kind": ["backup"]}, "kind.unknown"),
    ({"label": ""}, "label.malformed"),
    ({"label": 7}, "label.malformed"),
    ({"instance_project_id": ""}, "body.field-invalid"),
    ({"instance_project_id": "\ud800"}, "body.field-invalid"),
    ({"instance_project_id": "a\0"}, "body.field-invalid"),
    ({"instance_project_id": 7}, "body.field-invalid"),
    ({"source": "manual"}, "body.field-invalid"),
    ({"unknown\n": 1}, "body.field-invalid"),
]


@pytest.mark.parametrize(("change", "code"), FIELDS)
def test_malformed_field_attaches_nothing(
    make_filter: MakeFilter, stub_glance: StubGlance, change: dict[str, Any], code: str
) -> None:
    guarded = make_filter(stub_glance)
    answer = wsgi.call(guarded, "POST", "/v2/relations", SERVICE, ATTACH | change)
    assert code_of(answer) == code
    assert wsgi.call(guarded, "GET", "/v2/relations", ADMIN).json["relations"] == []


@pytest.mark.parametrize("missing", ["installation_uuid", "instance_id", "image_id", "kind"])
def test_missing_field_is_named(
    make_filter: MakeFilter, stub_glance: StubGlance, missing: str
) -> None:
    body = {name: text for name, text in ATTACH.items() if name != missing}
    answer = wsgi.call(make_filter(stub_glance), "POST", "/v2/relations", SERVICE, body)
    assert code_of(answer) == "body.field-invalid"
    assert missing in answer.json["error"]["message"]


@pytest.mark.parametrize(("body", "code", "status"), BODIES)
@pytest.mark.parametrize("path", ["/v2/relations", "/v2/installations"])
def test_malformed_body_is_refused_on_the_filters_routes(
    make_filter: MakeFilter,
    stub_glance: StubGlance,
    path: str,
    body: bytes,
    code: str,
    status: int,
) -> None:
    assert code_of(wsgi.call(make_filter(stub_glance), "POST", path, ADMIN, body), status) == code


BAD_SERVICE_USERS: list[list[Any]] = [
    *(["nova"], [{}], [{"user_id": ""}], [{"user_id": 7}], [{"user_id": "nova", "other": 1}]),
    *(
        [{"user_id": "nova", "resource_types": types}]
        for types in ([], "server", ["stack"], [7], [["server"]], {"server": True})
    ),
    [{"user_id": "nova"}, {"user_id": "nova", "resource_types": ["volume"]}],
    [{"user_id": f"nova-{number}"} for number in range(21)],
]


BAD_WITNESS: list[Any] = ["nova", None, 7, []]
BAD_PROCESSES: list[Any] = ["", "p p", "p" * 65, None, 7]
BAD_TIMES: list[Any] = ["noon", None, 7]
BAD_WITNESSES: list[Any] = [None, "nova-api", ["nova"], [7], [["nova-api"]]]


@pytest.mark.parametrize(
    "change",
    [
        *({"uuid": "x"}, {"name": ""}, {"name": None}, {"name": "n" * 256}, {"name": "a\nb"}),
        *({"service_user_id": "nova"}, {"service_users": None}, {"service_users": {}}),
        *({"service_users": users} for users in BAD_SERVICE_USERS),
        *({"witnesses": it} for it in BAD_WITNESSES),
    ],
)
def test_malformed_installation_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, change: dict[str, Any]
) -> None:
    body = {"uuid": UUID, "name": "nova"} | change
    answer = wsgi.call(make_filter(stub_glance), "POST", "/v2/installations", ADMIN, body)
    known = ("tuple.malformed", "body.field-invalid", "resource-type.unknown")
    assert code_of(answer) in known


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"installation_uuid": "x"}, "installation UUID"),
        *(({"witness": it}, "allowed are nova-api, nova-bus") for it in BAD_WITNESS),
        *(({"process": it}, "process") for it in BAD_PROCESSES),
        *(({name: it}, name) for name in ("from", "until") for it in BAD_TIMES),
        ({"from": "2026-01-31T12:02:00Z"}, "until is before the field from"),
        ({"until": "2100-01-31T12:00:00Z"}, "synchronize the clock"),
        ({"since": "2026-01-31T12:00:00Z"}, "since"),
    ],
)
def test_malformed_heartbeat_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, change: dict[str, Any], word: str
) -> None:
    times = {"from": "2026-01-31T12:00:00Z", "until": "2026-01-31T12:01:00Z"}
    body = {"installation_uuid": UUID, "witness": "nova-api", "process": "p", **times} | change
    made = make_filter(stub_glance)
    answer = wsgi.call(made, "POST", "/v2/witnesses", ADMIN, body)
    assert code_of(answer) in ("tuple.malformed", "body.field-invalid")
    assert word in answer.json["error"]["message"]
    assert wsgi.call(made, "GET", "/v2/info/relations", ADMIN).json["coverage"] == []


QUERIES = [
    ("limit=0", "limit.malformed"),
    ("limit=x", "limit.malformed"),
    ("limit=-1", "limit.malformed"),
    ("limit=", "limit.malformed"),
    ("marker=x", "marker.unknown"),
    ("marker=", "marker.unknown"),
    ("marker=%FF", "parameter.malformed"),
    ("%ff", "parameter.malformed"),
    ("sort_key=x", "parameter.unknown"),
    ("kind=backup&kind=boot", "parameter.malformed"),
    ("kind=x", "kind.unknown"),
    ("label=%20", "label.malformed"),
    ("installation_uuid=x", "tuple.malformed"),
    ("instance_id=a%0A", "tuple.malformed"),
    ("project_id=", "parameter.malformed"),
    ("project_id=a%00", "parameter.malformed"),
    ("source=x", "parameter.malformed"),
    ("created_after=x", "parameter.malformed"),
    ("created_before=2026-99-99", "parameter.malformed"),
]


@pytest.mark.parametrize("path", ["/v2/relations", "/v2/instances", f"/v2/images/{UUID}/relations"])
@pytest.mark.parametrize(("query", "code"), QUERIES)
def test_malformed_query_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, path: str, query: str, code: str
) -> None:
    answer = wsgi.call(make_filter(stub_glance), "GET", f"{path}?{query}", ADMIN)
    assert code_of(answer) == code


PATHS = [
    ("GET", f"/v2/instances/{UUID}/i?kind=backup", "parameter.unknown"),
    ("GET", "/v2/info/relations?limit=1", "parameter.unknown"),
    ("GET", "/v2/installations?limit=1", "parameter.unknown"),
    ("GET", "/v2/schemas/relation?x", "parameter.unknown"),
    ("POST", "/v2/relations?kind=backup", "parameter.unknown"),
    ("DELETE", f"/v2/instances/{UUID}/i?force=", "parameter.unknown"),
    ("GET", "/v2/images/x/relations", "image.id-malformed"),
    ("GET", f"/v2/images/{UUID}%0A/relations", "image.id-malformed"),
    ("GET", f"/v2/images/{UUID.upper()}/relations", "image.id-malformed"),
    ("GET", f"/v2/instances/x/{UUID}", "tuple.malformed"),
    ("GET", f"/v2/instances/{UUID}/a%0A", "tuple.malformed"),
    ("DELETE", f"/v2/instances/{UUID}/a%20b", "tuple.malformed"),
    ("DELETE", "/v2/installations/x", "tuple.malformed"),
    ("DELETE", f"/v2/installations/{UUID}%0A", "tuple.malformed"),
    ("DELETE", f"/v2/images/{UUID}/relations/{UUID}/i/image", "kind.unknown"),
    ("DELETE", f"/v2/images/{UUID}/relations/{UUID}/i/backup%0A", "kind.unknown"),
    ("DELETE", f"/v2/images/x/relations/{UUID}/i/backup", "image.id-malformed"),
    ("DELETE", f"/v2/images/{UUID}/relations/x/i/backup", "tuple.malformed"),
]


@pytest.mark.parametrize(("method", "path", "code"), PATHS)
def test_malformed_path_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, method: str, path: str, code: str
) -> None:
    assert code_of(wsgi.call(make_filter(stub_glance), method, path, ADMIN)) == code


LISTS = [
    (f"installation_uuid={UUID}", "tuple.incomplete"),
    ("installation_uuid=x&instance_id=i", "tuple.malformed"),
    (f"installation_uuid={UUID}&instance_id=i&instance_id=i", "tuple.malformed"),
    (f"installation_uuid={UUID}&instance_id=" + "i" * 256, "tuple.malformed"),
    (f"installation_uuid={UUID}&instance_id=i&relation_kind=x", "kind.unknown"),
    (f"installation_uuid={UUID}&instance_id=i&relation_label=", "label.malformed"),
    (f"installation_uuid={UUID}&instance_id=i&_method=POST", "request.method-overridden"),
    ("relation_kind=backup&_method=POST", "request.method-overridden"),
    ("relation_colour=red", "parameter.unknown"),
    (f"installation_uuid={UUID}&instance_id=i&relation_image_id={UUID}", "parameter.unknown"),
    ("instance_id=i&relation_kind=backup", "tuple.incomplete"),
    (f"installation_uuid={UUID}&relation_kind=backup", "tuple.incomplete"),
    ("relation_kind=backup&relation_kind=backup", "kind.unknown"),
    ("relation_installation_uuid=x", "tuple.malformed"),
    (
        f"installation_uuid={UUID}&instance_id=i&relation_installation_uuid={OTHER}",
        "tuple.conflict",
    ),
    ("relation_resource_type=disk", "resource-type.unknown"),
    ("relation_label=", "label.malformed"),
    ("relation_source=rumour", "parameter.malformed"),
    ("relation_created_after=yesterday", "parameter.malformed"),
    ("relation_created_before=", "parameter.malformed"),
    ("relation_in_use=maybe", "parameter.malformed"),
    ("relation_descends_from=ubuntu", "image.id-malformed"),
]


@pytest.mark.parametrize(("query", "code"), LISTS)
def test_malformed_image_list_request_is_refused(
    make_filter: MakeFilter, stub_glance: StubGlance, query: str, code: str
) -> None:
    answer = wsgi.call(make_filter(stub_glance), "GET", f"/v2/images?{query}", SERVICE)
    assert code_of(answer) == code
    assert stub_glance.seen == []


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>", b"\xff{", b"[1]", b"null", b""])
def test_image_is_recorded_whatever_the_body_of_the_response_is(
    make_filter: MakeFilter, body: bytes
) -> None:
    def stub_glance(environ: Any, start_response: Any) -> list[bytes]:
        start_response("201 Created", [("Content-Type", "application/json")])
        return [body]

    answer = wsgi.call(
        make_filter(stub_glance), "POST", "/v2/images", SERVICE | TUPLE, {"name": "n"}
    )
    assert (answer.status, answer.body) == (201, body)
    assert answer.headers["X-Relation-Recorded"] == "snapshot"
