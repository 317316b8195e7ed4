"""Failures of Glance, and of proxies before it."""

import io
import json
import socket
import traceback
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import openstack
import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.client import (
    Conflict,
    Forbidden,
    GlanceError,
    GlanceUnreachable,
    ImageNotOfInstance,
    ImportFailed,
    ImportUnfinished,
    InstanceAwareImageService,
    InstanceRef,
    InvalidResponse,
    NotFound,
    NotInstanceAware,
    PayloadTooLarge,
    RelationsClient,
    ServiceUnavailable,
    Unauthorized,
)
from related_images.client.glance import seconds_to_wait
from related_images.errors import ImageIdMalformed, KindUnknown, TupleMalformed
from tests.client.clients import INSTALLATION, OTHER_INSTALLATION, SERVICE, Maker, session
from tests.client.scripted import HANG_UP, Asked, Reply, Scripted, shown

IMAGE = "8a6ff7cb-1a1f-4bd6-9a3a-4e0b0f2c2f3d"
APPLIED = "installation_uuid, instance_id"
FORMATS = {"disk_format": "raw", "container_format": "bare"}
CREATED_AT = "2026-01-31T02:00:00.000000Z"
PROXY_PAGE = b"<html><head><title>502</title></head><body><p>Bad &amp; broken</p></body></html>"


@pytest.fixture
def service(scripted: Scripted) -> InstanceAwareImageService:
    adapter = Adapter(session(scripted.url, SERVICE), service_type="image", connect_retries=2)
    return InstanceAwareImageService(adapter, INSTALLATION)


def test_malformed_arguments_are_not_sent(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    with pytest.raises(TupleMalformed):
        service.create("a b", kind="snapshot")
    with pytest.raises(KindUnknown):
        service.create("inst-1", kind="boot")
    with pytest.raises(KindUnknown):
        service.list("inst-1", kind="copy")
    with pytest.raises(ImageIdMalformed):
        service.delete("../tasks")
    assert not [asked for asked in scripted.asked if not asked.path.endswith("/info/relations")]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("relation.forbidden", "use an account that has the role"),
        (
            "installation.bound",
            "use a service user of the installation for this resource type",
        ),
        ("installation.unregistered", "ask an administrator to register the installation"),
        (
            None,
            "check the roles of the account, the owner of the image, and whether it is protected",
        ),
    ],
)
def test_the_next_step_of_a_403_depends_on_its_code(
    service: InstanceAwareImageService, scripted: Scripted, code: str | None, advice: str
) -> None:
    ours = {"status": 403, "code": code, "title": "t", "message": "d", "request_id": "req-1"}
    told = {"error": ours} if code else {"message": "forbidden"}
    scripted.script = lambda _: shown(told, 403)
    with pytest.raises(Forbidden, match=f"; {advice}") as refused:
        service.get(IMAGE)
    assert str(refused.value).count("; ") == 1


def test_a_wrong_password_is_reported_as_unauthorized(scripted: Scripted) -> None:
    scripted.script = lambda _: shown({"error": {"message": "not this one", "code": 401}}, 401)
    who = Password(f"{scripted.url}/v3", "alice", "wrong", user_domain_id="d", project_id="p")
    adapter = Adapter(Session(who), service_type="image")
    with pytest.raises(Unauthorized, match="Keystone does not accept the credentials") as refused:
        RelationsClient(adapter).info()
    assert "got no answer" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, GlanceError),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, PayloadTooLarge),
        (500, GlanceError),
        (503, ServiceUnavailable),
    ],
)
def test_each_status_has_its_error(
    service: InstanceAwareImageService, scripted: Scripted, status: int, error: type[GlanceError]
) -> None:
    told = {
        "status": status,
        "code": "some.word",
        "title": "T",
        "message": "What was wrong.",
        "request_id": "req-1",
    }
    scripted.script = lambda asked: shown({"error": told}, status, Retry_After="7")
    with pytest.raises(GlanceError) as caught:
        service.attach("inst-1", IMAGE, kind="backup")
    assert type(caught.value) is error
    assert caught.value.code == "some.word"
    assert caught.value.status == status
    assert caught.value.request == "POST /v2/relations"
    assert caught.value.request_id == "req-1"
    assert caught.value.retry_after == 7
    assert caught.value.doubtful == (status >= 500)
    step = f"; {error.next_step} after 7 seconds"
    said = "What was wrong" if error.filter_adds_next_step else f"What was wrong{step}"
    assert str(caught.value) == f"POST /v2/relations answered {status}: {said} (request id req-1)"


def test_a_403_of_another_program_has_a_next_step(
    scripted: Scripted, service: InstanceAwareImageService
) -> None:
    scripted.script = lambda asked: Reply(403, b"not you")
    with pytest.raises(Forbidden, match="not you; check the roles of the account"):
        service.attach("inst-1", IMAGE, kind="backup")


@pytest.mark.parametrize(
    ("asked", "now", "seconds"),
    [
        ("120", None, 120),
        ("0", None, 0),
        ("Sun, 22 Nov 2026 08:02:00 GMT", "Sun, 22 Nov 2026 08:00:00 GMT", 120),
        ("Sunday, 22-Nov-26 08:02:00 GMT", "Sun, 22 Nov 2026 08:00:00 GMT", 120),
        ("Sun, 22 Nov 2026 08:00:00 GMT", "Sun, 22 Nov 2026 08:02:00 GMT", 0),
        ("Sun, 22 Nov 2020 08:00:00 GMT", None, 0),
        ("Sun, 22 Nov 2026 08:02:00 GMT", "noon", None),
        ("Sun, 22 Nov 2026 08:02:00 -0000", "Sun, 22 Nov 2026 08:00:00 GMT", None),
        ("Sun, 99 Nov 2026 08:02:00 GMT", None, None),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("9" * 5000, None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    asked: str | None, now: str | None, seconds: int | None
) -> None:
    headers = {"Retry-After": asked, "Date": now}
    given = {name: text for name, text in headers.items() if text is not None}
    assert seconds_to_wait(given) == seconds


def test_a_date_in_retry_after_is_reported_in_seconds(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    past = "Sun, 22 Nov 2020 08:00:00 GMT"
    scripted.script = lambda asked: Reply(503, b"", {"Retry-After": past})
    with pytest.raises(ServiceUnavailable, match="try again after 0 seconds") as caught:
        service.get(IMAGE)
    assert caught.value.retry_after == 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(502, PROXY_PAGE, {"Content-Type": "text/html"}), "Bad & broken"),
        (Reply(502, b""), "Bad Gateway"),
        (Reply(502, b'["a list"]'), '["a list"]'),
        (Reply(502, b'{"error": "text"}'), "{'error': 'text'}"),
        (shown({"message": "Glance says<br /><br />\n"}, 502), "Glance says"),
        (
            shown({"error": {"code": 502, "message": "As Keystone says it"}}, 502),
            "As Keystone says it",
        ),
        (shown({"error": {"code": "c", "message": None}}, 502), "{'error': {'code': 'c', "),
        (shown({"error": ["a list"]}, 502), "{'error': ['a list']}"),
        (shown({"errors": [{"code": "c", "detail": "x"}]}, 502), "{'errors': [{'code': 'c', "),
        (Reply(502, b"[" * 10_000), "[[["),
    ],
)
def test_any_error_page_is_parsed(
    make_client: Maker, scripted: Scripted, reply: Reply, said: str
) -> None:
    scripted.script = lambda asked: reply
    service = InstanceAwareImageService(make_client(scripted.url, SERVICE), INSTALLATION)
    with pytest.raises(GlanceError, match="answered 502") as caught:
        service.get(IMAGE)
    assert f"answered 502: {said}" in str(caught.value)
    assert caught.value.code == "glance.refused"
    assert caught.value.doubtful


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, PROXY_PAGE, {"Content-Type": "text/html"}),
        Reply(200, b'{"relations": ['),
        Reply(200, b"[]"),
        Reply(200, b"[" * 10_000),
        Reply(200, b'{"relations": [{"kind": "backup"}]}'),
        Reply(200, b'{"images": []}'),
    ],
    ids=["proxy", "cut", "list", "deep", "half a relation", "something else"],
)
def test_an_invalid_body_of_a_200_is_an_error(
    service: InstanceAwareImageService, scripted: Scripted, reply: Reply
) -> None:
    scripted.script = lambda asked: reply
    with pytest.raises(InvalidResponse, match="GET /v2/relations answered 200") as caught:
        list(service.relations("inst-1"))
    assert caught.value.doubtful


def test_a_list_of_versions_is_an_invalid_response(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    choices = Reply(300, b'{"versions": []}', {"Content-Type": "application/json"})
    scripted.script = lambda asked: choices
    with pytest.raises(InvalidResponse, match="check that the endpoint is"):
        list(service.relations("inst-1"))


@pytest.mark.parametrize("reply", [HANG_UP, Reply(200, b'{"id": "x"}', cut=True)])
def test_an_incomplete_response_is_an_error(
    make_client: Maker, scripted: Scripted, reply: Reply | None
) -> None:
    scripted.script = lambda asked: reply
    service = InstanceAwareImageService(make_client(scripted.url, SERVICE), INSTALLATION)
    with pytest.raises(GlanceUnreachable, match="got no answer"):
        service.get(IMAGE)


def test_a_closed_port_is_reported(make_client: Maker) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(GlanceUnreachable, match="check the endpoint"):
            InstanceAwareImageService(make_client(url, SERVICE), INSTALLATION).info()


def test_a_session_without_credentials_is_reported() -> None:
    service = InstanceAwareImageService(Adapter(Session(), service_type="image"), INSTALLATION)
    with pytest.raises(GlanceUnreachable):
        service.info()


@pytest.mark.parametrize(
    "options",
    [
        {"has_image": False},
        {"image_endpoint_override": "127.0.0.1:1/v2"},
        {"image_endpoint_override": "http://[bad/v2"},
        {"cacert": "/missing.pem"},
    ],
)
def test_a_connection_without_an_image_service_is_reported(options: dict[str, Any]) -> None:
    auth = {"endpoint": "https://127.0.0.1:1", "token": SERVICE}
    known = {"load_yaml_config": False, "load_envvars": False, "auth_type": "admin_token"}
    connection = openstack.connect(**{"auth": auth, **known, **options})
    with pytest.raises(GlanceUnreachable, match="check the endpoint"):
        RelationsClient(connection).info()


def test_an_error_of_the_data_to_upload_is_raised_unchanged(
    service: InstanceAwareImageService,
) -> None:
    file = io.BytesIO(b"data")
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        service.upload(IMAGE, (part for part in file))


def test_info_is_requested_until_the_first_success(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    scripted.info = Reply(404)
    for _ in range(2):
        with pytest.raises(NotInstanceAware, match="install related-images"):
            service.create("inst-1", kind="snapshot")
    assert len(scripted.asked) == 2
    scripted.info = shown({"version": "1", "kinds": ["backup"], "guard": "off"})
    assert service.info().kinds == ("backup",)
    assert service.info().answer["guard"] == "off"
    assert len(scripted.asked) == 3


@pytest.mark.parametrize("recorded", [None, "backup"])
def test_the_error_of_an_unrecorded_creation_has_the_image_id(
    service: InstanceAwareImageService, scripted: Scripted, recorded: str | None
) -> None:
    said = {"X_Relation_Recorded": recorded} if recorded else {}
    scripted.script = lambda asked: shown(json.loads(asked.body), 201, **said)
    with pytest.raises(NotInstanceAware, match="not snapshot") as caught:
        service.create("inst-1", kind="snapshot", name="x")
    (asked,) = scripted.of("POST", "/v2/images")
    assert caught.value.image_id == json.loads(asked.body)["id"]


class Lossy:
    """A Glance that creates images, or not, and whose responses to POST are lost."""

    def __init__(self, *, makes: bool, relates: bool, replies: list[Reply | None]) -> None:
        self.makes = makes
        self.relates = relates
        self.replies = replies
        self.image: Any = None
        self.said: dict[str, str] = {}

    def __call__(self, asked: Asked) -> Reply | None:
        if asked.method == "POST":
            return self._create(asked)
        if self.image is None:
            return Reply(404)
        if asked.path.endswith("/relations"):
            return shown({"relations": [self._relation()] if self.relates else []})
        return shown(self.image)

    def _create(self, asked: Asked) -> Reply | None:
        if self.replies:
            self.image = json.loads(asked.body) if self.makes else None
            self.said = asked.tuple_headers()
            return self.replies.pop(0)
        if self.image:
            return Reply(409)
        self.image = json.loads(asked.body)
        return shown(self.image, 201, X_Relation_Recorded="snapshot")

    def _relation(self) -> dict[str, Any]:
        return {
            "installation_uuid": self.said["x-installation-uuid"],
            "instance_id": self.said["x-instance-id"],
            "image_id": self.image["id"],
            "kind": "snapshot",
            "label": None,
            "source": "service",
            "project_id": "p",
            "created_at": "2026-01-01T00:00:00.000000Z",
            "image_created_at": None,
            "image_deleted_at": None,
        }


LOST = [HANG_UP, Reply(201, b'{"id"', cut=True), Reply(504, PROXY_PAGE), Reply(500)]
LOST_IDS = ["no answer", "cut short", "gateway timeout", "internal error"]


@pytest.mark.parametrize("lost", LOST, ids=LOST_IDS)
def test_an_image_is_found_after_a_lost_response(
    service: InstanceAwareImageService, scripted: Scripted, lost: Reply | None
) -> None:
    scripted.script = glance = Lossy(makes=True, relates=True, replies=[lost])
    image = service.create("inst-1", kind="snapshot", name="x")
    assert image.id == glance.image["id"]
    assert image.acknowledgement == "snapshot"
    assert len(scripted.of("POST", "/v2/images")) == 1


@pytest.mark.parametrize("lost", LOST, ids=LOST_IDS)
def test_a_lost_request_is_repeated_with_the_same_id(
    service: InstanceAwareImageService, scripted: Scripted, lost: Reply | None
) -> None:
    scripted.script = Lossy(makes=False, relates=False, replies=[lost])
    image = service.create("inst-1", kind="snapshot", name="x")
    first, second = scripted.of("POST", "/v2/images")
    assert first.body == second.body
    assert image.id == json.loads(first.body)["id"]


def test_a_creation_that_fails_twice_raises_with_its_id(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    scripted.script = Lossy(makes=False, relates=False, replies=[HANG_UP] * 3)
    with pytest.raises(GlanceUnreachable) as caught:
        service.create("inst-1", kind="snapshot")
    first, _second = scripted.of("POST", "/v2/images")
    assert caught.value.image_id == json.loads(first.body)["id"]


def test_an_image_found_without_its_relation_is_an_error(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    scripted.script = glance = Lossy(makes=True, relates=False, replies=[HANG_UP])
    with pytest.raises(NotInstanceAware) as caught:
        service.create("inst-1", kind="snapshot")
    assert caught.value.image_id == glance.image["id"]
    assert len(scripted.of("POST", "/v2/images")) == 1


def test_a_late_first_request_is_accepted(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    late = Lossy(makes=True, relates=True, replies=[HANG_UP, Reply(409)])
    looks: list[Asked] = []

    def script(asked: Asked) -> Reply | None:
        if asked.method == "GET":
            looks.append(asked)
            return Reply(404) if len(looks) == 1 else late(asked)
        return late(asked)

    scripted.script = script
    assert service.create("inst-1", kind="snapshot").id == late.image["id"]
    assert len(scripted.of("POST", "/v2/images")) == 2


@pytest.mark.parametrize("status", [400, 403, 409, 413])
def test_a_refused_creation_is_not_repeated(
    service: InstanceAwareImageService, scripted: Scripted, status: int
) -> None:
    scripted.script = lambda asked: Reply(status)
    with pytest.raises(GlanceError) as caught:
        service.create("inst-1", kind="snapshot", id=IMAGE)
    assert caught.value.image_id is None
    assert len(scripted.of("POST", "/v2/images")) == 1
    assert not scripted.of("GET", f"/v2/images/{IMAGE}")


def test_the_error_of_a_doubtful_conflict_has_the_image_id(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    """The first response is lost, the second is a 409, and the image cannot be read."""
    looks = [Reply(404), Reply(503)]
    posts = [HANG_UP, Reply(409)]
    scripted.script = lambda asked: (looks if asked.method == "GET" else posts).pop(0)
    with pytest.raises(Conflict) as caught:
        service.create("inst-1", kind="snapshot", id=IMAGE)
    assert caught.value.image_id == IMAGE


def test_without_an_id_a_random_one_is_sent(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    scripted.script = Lossy(makes=False, relates=False, replies=[HANG_UP])
    image = service.create("inst-1", kind="snapshot", id=None)
    (looked,) = {asked.path for asked in scripted.asked if asked.path.startswith("/v2/images/")}
    assert looked == f"/v2/images/{image.id}"
    with pytest.raises(ImageIdMalformed):
        service.create("inst-1", kind="snapshot", id="None")


def test_a_503_of_the_filter_is_not_repeated(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    told = {"code": "store.unavailable", "message": "The database is down"}
    scripted.script = lambda asked: shown({"error": told}, 503, Retry_After="3")
    with pytest.raises(ServiceUnavailable, match="try again after 3 seconds") as caught:
        service.create("inst-1", kind="snapshot")
    assert caught.value.code == "store.unavailable"
    assert len(scripted.of("POST", "/v2/images")) == 1


def queued(asked: Asked) -> Reply:
    """Respond as a Glance that offers ``web-download`` and has a queued image."""
    if asked.path == "/v2/info/import":
        return shown({"import-methods": {"value": ["web-download"]}})
    if asked.path.endswith("/tasks"):
        return shown({"tasks": []})
    return shown({"id": IMAGE, "status": "queued", **FORMATS})


class Importing:
    """Respond as a Glance with imports, in which some requests for the image fail.

    :param failures: the responses to these requests
    """

    def __init__(self, *failures: Reply | None) -> None:
        self.failures = list(failures)
        self.is_begun = False

    def answer(self, asked: Asked) -> Reply | None:
        if asked.path == "/v2/info/import":
            return shown({"import-methods": {"value": ["web-download"]}})
        if asked.method == "POST":
            self.is_begun = True
            return Reply(202)
        if self.is_begun and self.failures:
            return self.failures.pop(0)
        if asked.path.endswith("/tasks"):
            return shown({"tasks": [{"id": "t", "status": "success"}] if self.is_begun else []})
        return shown({"id": IMAGE, "status": "active"}) if self.is_begun else queued(asked)


def test_waiting_continues_while_a_proxy_fails(make_client: Maker, scripted: Scripted) -> None:
    importing = Importing(Reply(502, PROXY_PAGE), HANG_UP, HANG_UP, Reply(504))
    scripted.script = importing.answer
    service = InstanceAwareImageService(make_client(scripted.url, SERVICE), INSTALLATION)
    assert service.import_image("http://x/y", image_id=IMAGE).status == "active"
    assert importing.failures == []


@pytest.mark.parametrize(
    ("status", "deadline"), [(502, 0.0), (200, 3600.0), (401, 3600.0), (404, 3600.0)]
)
def test_waiting_without_responses_ends_with_the_image_id(
    service: InstanceAwareImageService, scripted: Scripted, status: int, deadline: float
) -> None:
    scripted.script = Importing(Reply(status)).answer
    with pytest.raises(GlanceError) as caught:
        service.import_image("http://x/y", image_id=IMAGE, deadline=deadline)
    assert (caught.value.status, caught.value.image_id) == (status, IMAGE)


def test_an_import_ends_when_glance_removes_its_lock(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    """Before, Glance refuses another import, such as a copy of the new image."""
    locked = {"id": IMAGE, "status": "active", "os_glance_import_task": "t"}
    images = [shown(locked), shown({"id": IMAGE, "status": "active"})]
    task = {"id": "t", "status": "success"}
    scripted.script = lambda asked: (
        shown({"tasks": [task]}) if asked.path.endswith("/tasks") else images.pop(0)
    )
    assert "os_glance_import_task" not in service.wait_for_import(IMAGE)
    assert images == []


def test_the_current_task_or_the_latest_one_is_waited_for(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    image: dict[str, Any] = {"id": IMAGE, "status": "active"}
    tasks = [
        {"id": "new", "status": "success", "created_at": "2026-01-02T00:00:00"},
        {"id": "old", "status": "failure", "created_at": "2026-01-01T00:00:00"},
    ]
    scripted.script = lambda asked: shown(
        {"tasks": tasks} if asked.path.endswith("/tasks") else image
    )
    assert service.wait_for_import(IMAGE).id == IMAGE
    image["os_glance_import_task"] = "old"
    with pytest.raises(ImportFailed, match="Glance gave no reason"):
        service.wait_for_import(IMAGE)


def test_an_import_without_a_visible_task_depends_on_the_image(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    image: dict[str, Any] = {"id": IMAGE, "status": "importing", "os_glance_import_task": "t"}
    scripted.script = lambda asked: shown({"tasks": []} if "tasks" in asked.path else image)
    with pytest.raises(ImportUnfinished):
        service.wait_for_import(IMAGE, deadline=0)
    del image["os_glance_import_task"]
    with pytest.raises(ImportFailed, match="no import into it is in progress"):
        service.wait_for_import(IMAGE)
    image["status"] = "active"
    assert service.wait_for_import(IMAGE).status == "active"


def test_a_copy_is_checked_even_if_a_policy_hides_the_stores(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    request = {"method": {"name": "copy-image"}, "all_stores_must_succeed": False}
    task = {"id": "t", "status": "success", "input": {"import_req": request, "backend": ["b"]}}
    image = {"id": IMAGE, "status": "active", "os_glance_failed_import": "a"}
    scripted.script = lambda asked: shown({"tasks": [task]} if "tasks" in asked.path else image)
    assert service.wait_for_import(IMAGE).status == "active"
    image["os_glance_failed_import"] = "a,b"
    with pytest.raises(ImportFailed, match="not stored in b"):
        service.wait_for_import(IMAGE)


def test_no_error_shows_the_credentials_of_a_url(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    url = f"https://user:{'secret' * 60}@host/image?token=secret"
    refusal = Reply(400, f"URI does not pass filtering: {url}".encode())
    scripted.script = lambda asked: refusal if asked.method == "POST" else queued(asked)
    with pytest.raises(ImportFailed) as caught:
        service.import_image(url, image_id=IMAGE)
    assert "https://***@host/image?token=***" in str(caught.value)
    everything = "".join(traceback.format_exception(caught.value))
    assert "secret" not in everything


def test_a_503_of_another_program_is_doubtful(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    told = {"code": "GW-1", "message": "No upstream answered in time"}
    scripted.script = lambda asked: shown({"error": told}, 503)
    with pytest.raises(ServiceUnavailable, match="No upstream answered") as caught:
        service.create("inst-1", kind="snapshot")
    assert caught.value.doubtful
    assert scripted.of("GET", f"/v2/images/{caught.value.image_id}")


def _page(applied: str | None, **body: Any) -> Reply:
    said = {"X_Relation_Filters_Applied": applied} if applied else {}
    return shown(body, 200, **said)


@pytest.mark.parametrize("applied", [None, "installation_uuid, instance_id, kind"])
def test_an_unacknowledged_list_is_an_error(
    service: InstanceAwareImageService, scripted: Scripted, applied: str | None
) -> None:
    scripted.script = lambda asked: _page(applied, images=[{"id": IMAGE}])
    with pytest.raises(NotInstanceAware, match="may have other images"):
        next(service.list("inst-1"))


def test_every_page_must_be_acknowledged(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    def script(asked: Asked) -> Reply:
        if "marker" in asked.query:
            return _page(None, images=[{"id": "foreign"}])
        return _page(APPLIED, images=[{"id": IMAGE}], next="/v2/images?marker=1")

    scripted.script = script
    images = service.list("inst-1")
    assert next(images).id == IMAGE
    with pytest.raises(NotInstanceAware):
        next(images)


def test_pages_are_requested_when_they_are_read(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    scripted.script = lambda asked: _page(
        APPLIED, images=[{"id": "a"}, {"id": "b"}], next=f"/else/v2/images?m={len(scripted.asked)}"
    )
    images = service.list("inst-1", limit=5)
    assert not scripted.of("GET", "/v2/images")
    assert [next(images).id for _ in range(2)] == ["a", "b"]
    assert len(scripted.of("GET", "/v2/images")) == 1
    assert [image.id for image in images] == ["a", "b", "a"]
    assert len(scripted.of("GET", "/v2/images")) == 3


def test_a_link_to_a_previous_page_is_an_error(
    service: InstanceAwareImageService, scripted: Scripted
) -> None:
    def script(asked: Asked) -> Reply:
        marker = "2" if asked.query == "marker=1" else "1"
        return _page(APPLIED, images=[], next=f"/v2/images?marker={marker}")

    scripted.script = script
    with pytest.raises(InvalidResponse, match="refers to a previous page"):
        list(service.list("inst-1"))
    assert len(scripted.of("GET", "/v2/images")) == 3


def _relation(installation: str, instance: str, kind: str) -> dict[str, Any]:
    glance = Lossy(makes=True, relates=True, replies=[])
    glance.image = {"id": IMAGE}
    glance.said = {"x-installation-uuid": installation, "x-instance-id": instance}
    return glance._relation() | {"kind": kind}


@pytest.mark.parametrize(
    "relations",
    [
        [],
        [_relation(INSTALLATION, "inst-2", "backup")],
        [_relation(OTHER_INSTALLATION, "inst-1", "backup")],
        [_relation(INSTALLATION, "inst-1", "boot")],
    ],
    ids=["none", "other instance", "other installation", "started from it"],
)
def test_an_image_of_another_server_is_not_deleted(
    service: InstanceAwareImageService, scripted: Scripted, relations: list[Any]
) -> None:
    scripted.script = lambda asked: shown({"relations": relations})
    with pytest.raises(ImageNotOfInstance, match="nothing was deleted") as caught:
        service.delete(IMAGE, instance_id="inst-1")
    assert caught.value.image_id == IMAGE
    assert not [asked for asked in scripted.asked if asked.method == "DELETE"]


@pytest.mark.parametrize("reply", [HANG_UP, Reply(503), Reply(200, PROXY_PAGE), Reply(404)])
def test_nothing_is_deleted_if_the_relations_cannot_be_read(
    service: InstanceAwareImageService, scripted: Scripted, reply: Reply | None
) -> None:
    scripted.script = lambda asked: reply
    with pytest.raises(GlanceError):
        service.delete(IMAGE, instance_id="inst-1")
    assert not [asked for asked in scripted.asked if asked.method == "DELETE"]


class Renewing(Token):
    """Credentials that can be renewed, so that requests without data are repeated after a 401."""

    def invalidate(self) -> bool:
        return True


@pytest.mark.parametrize("data", [b"data", io.BytesIO(b"data"), iter([b"data"])])
@pytest.mark.parametrize("reply", [Reply(401), Reply(307, headers={"Location": "/"}), HANG_UP])
def test_data_is_sent_once_even_after_a_failure(
    scripted: Scripted, data: Any, reply: Reply | None
) -> None:
    scripted.script = lambda asked: reply
    renewing = Session(auth=Renewing(scripted.url, SERVICE))
    service = InstanceAwareImageService(
        Adapter(renewing, service_type="image", connect_retries=2), INSTALLATION
    )
    with pytest.raises(GlanceError):
        service.upload(IMAGE, data)
    assert len(scripted.of("PUT", f"/v2/images/{IMAGE}/file")) == 1


def test_a_get_is_repeated_after_a_broken_connection(
    make_client: Maker, scripted: Scripted
) -> None:
    replies: list[Reply | None] = [HANG_UP, shown({"id": IMAGE})]
    scripted.script = lambda asked: replies.pop(0)
    service = InstanceAwareImageService(make_client(scripted.url, SERVICE), INSTALLATION)
    assert service.get(IMAGE).id == IMAGE


def test_a_get_is_repeated_as_configured_in_the_adapter(scripted: Scripted) -> None:
    replies: list[Reply | None] = [HANG_UP]
    scripted.script = lambda asked: replies.pop(0)
    adapter = Adapter(session(scripted.url, SERVICE), service_type="image", connect_retries=0)
    with pytest.raises(GlanceUnreachable):
        InstanceAwareImageService(adapter, INSTALLATION).get(IMAGE)


def test_ancestry_and_descendants_are_parsed(scripted: Scripted) -> None:
    via = {"installation_uuid": INSTALLATION, "instance_id": "inst-1"}
    step = {"via": [via], "kind": "backup", "created_at": CREATED_AT, "image_deleted_at": None}
    up = step | {"image_id": "parent"}
    down = step | {"image_id": "child", "depth": 1, "parent_image_id": IMAGE}
    answers = {"ancestry": {"ancestry": [up]}, "descendants": {"descendants": [down]}}
    scripted.script = lambda asked: shown(answers[asked.path.rpartition("/")[2]])
    relations = RelationsClient(Adapter(session(scripted.url, SERVICE), service_type="image"))
    (ancestor,) = relations.ancestry(IMAGE)
    (descendant,) = relations.descendants(IMAGE, depth=2)
    assert (ancestor.image_id, ancestor.via) == ("parent", (InstanceRef(**via),))
    assert (descendant.parent_image_id, descendant.depth) == (IMAGE, 1)
    assert scripted.asked[-1].query == "depth=2"


def test_usages_that_time_out_are_requested_in_parts(
    make_client: Maker, scripted: Scripted
) -> None:
    def answer(asked: Asked) -> Reply:
        ids = usages_asked_for(asked)
        if len(ids) > 25:
            return Reply(503)
        counted = {"instances": 1, "live_instances": 1, "unused_since": None}
        rows = [{"image_id": id, **counted} for id in ids]
        return shown({"usages": rows, "all_projects": True})

    scripted.script = answer
    client = RelationsClient(make_client(scripted.url, SERVICE))
    images = [str(uuid4()) for _ in range(103)]
    assert [usage.image_id for usage in client.usages(images)] == images
    scripted.script = lambda asked: Reply(503)
    scripted.asked.clear()
    with pytest.raises(ServiceUnavailable):
        list(client.usages(images))
    # 103, 51, 25, 12, 6, 3 and 1 of the images; the IDs of more than 32 are in the body
    assert len(scripted.of("POST", "/v2/usages")) == 2
    assert len(scripted.of("GET", "/v2/usages")) == 5


def test_usages_of_other_images_are_refused(make_client: Maker, scripted: Scripted) -> None:
    def answer(asked: Asked) -> Reply:
        counted = {"instances": 0, "live_instances": 0, "unused_since": None}
        rows = [{"image_id": id, **counted} for id in reversed(usages_asked_for(asked))]
        return shown({"usages": rows, "all_projects": True})

    scripted.script = answer
    client = RelationsClient(make_client(scripted.url, SERVICE))
    for number in (2, 40):
        with pytest.raises(InvalidResponse, match="usages of the requested images"):
            list(client.usages([str(uuid4()) for _ in range(number)]))


def usages_asked_for(asked: Asked) -> list[str]:
    """Return the IDs of the images of a request for usages."""
    if asked.method == "POST":
        ids: list[str] = json.loads(asked.body)["image_ids"]
        return ids
    return parse_qs(asked.query)["image_ids"][0].split(",")


def test_a_filter_without_resource_types_gets_no_request_about_a_volume(
    make_client: Maker, scripted: Scripted
) -> None:
    """It would ignore the type, and act on the server with the same ID."""
    volumes = InstanceAwareImageService(make_client(scripted.url, SERVICE), INSTALLATION, "volume")
    image_id = str(uuid4())
    for call in (
        lambda: volumes.create("vol-1", kind="snapshot", name="new"),
        lambda: volumes.list("vol-1"),
        lambda: volumes.attach("vol-1", image_id, kind="boot"),
        lambda: volumes.detach("vol-1", image_id, kind="boot"),
        lambda: volumes.instance_ended("vol-1"),
    ):
        with pytest.raises(NotInstanceAware, match="type volume, so nothing was done; it knows se"):
            call()
    assert {asked.method for asked in scripted.asked} == {"GET"}
    assert scripted.of("GET", "/v2/images") == []
