"""Upload, import and deletion of images with relations, and failures of Glance."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest

from tests import wsgi
from tests.filters import filtering, instance_headers, migrated, new_uuid
from tests.functional.cloud import ADMIN, Cloud, new_server
from tests.servers import Answer

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = {"disk_format": "raw", "container_format": "bare"}


def until_active(cloud: Cloud, image_id: str, headers: dict[str, str]) -> Answer:
    deadline = monotonic() + 30
    while monotonic() < deadline:
        answer = cloud.call("GET", f"/v2/images/{image_id}", headers)
        if answer.json["status"] == "active":
            return answer
        sleep(0.05)
    raise AssertionError(answer.body)


def test_image_data_passes_unchanged(cloud: Cloud) -> None:
    server, data = new_server(), bytes(range(256)) * 300
    image_id = cloud.create(server, **FORMATS)
    cloud.upload(image_id, server.service | server.headers, data)
    answer = cloud.call("GET", f"/v2/images/{image_id}/file", server.user | server.headers)
    assert (answer.status, answer.body) == (200, data)


def test_image_is_staged_and_imported(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server, **FORMATS)
    sent_headers = server.service | server.headers
    assert cloud.call("PUT", f"/v2/images/{image_id}/stage", sent_headers, b"data").status == 204
    method = {"method": {"name": "glance-direct"}}
    assert cloud.call("POST", f"/v2/images/{image_id}/import", sent_headers, method).status == 202
    assert until_active(cloud, image_id, server.user).json["size"] == 4
    assert cloud.image_ids(server.user | server.headers, status="active") == [image_id]


@pytest.mark.parametrize("with_headers", [True, False])
def test_deletion_is_recorded(cloud: Cloud, with_headers: bool) -> None:
    server = new_server()
    image_id, kept = cloud.create(server), cloud.create(server)
    sent_headers = server.headers if with_headers else {}
    assert cloud.call("DELETE", f"/v2/images/{image_id}", server.user | sent_headers).status == 204
    by_image = {relation["image_id"]: relation for relation in cloud.relations(**server.query)}
    assert by_image[image_id]["image_deleted_at"].endswith("Z")
    assert by_image[kept]["image_deleted_at"] is None
    assert cloud.image_ids(server.user | server.headers) == [kept]


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", "?_method=DELETE"),
        ("PUT", "?x;_method=delete"),
        ("POST", "?_method=%44ELETE"),
    ],
)
def test_deletion_by_method_override_is_recorded(cloud: Cloud, method: str, query: str) -> None:
    server = new_server()
    image_id = cloud.create(server)
    assert cloud.call(method, f"/v2/images/{image_id}{query}", server.user).status == 204
    assert cloud.relations(image_id=image_id)[0]["image_deleted_at"] is not None


def test_id_in_upper_case_is_another_image(cloud: Cloud) -> None:
    """On a case-sensitive database any user may create and delete the other image."""
    server, stranger = new_server(), new_server()
    image_id = cloud.create(server)
    made = cloud.call("POST", "/v2/images", stranger.user, {"id": image_id.upper(), "name": "n"})
    assert made.status == 201
    path = f"/v2/images/{image_id.upper()}"
    assert cloud.call("DELETE", path, stranger.user).status == 204
    assert cloud.relations(image_id=image_id)[0]["image_deleted_at"] is None
    assert cloud.image_ids(server.user | server.headers) == [image_id]


@pytest.mark.parametrize(
    ("spelling", "tells"),
    [(str.upper, True), (str.upper, False), (lambda id: f"{id[:-2]}%C2%AA", True)],
)
def test_deletion_by_another_spelling_of_the_id_is_recorded(
    cloud: Cloud, tmp_path: "Path", spelling: Callable[[str], str], tells: bool
) -> None:
    def of_any_spelling(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """A Glance whose database compares without case and accents, as MariaDB does."""
        if environ["REQUEST_METHOD"] == "GET" and not tells:
            start_response("503 Service Unavailable", [])
            return [b""]
        path = environ["PATH_INFO"].replace("\xc2\xaa", image_id[-2:]).lower()
        return cloud.bare({**environ, "PATH_INFO": path}, start_response)

    server, image_id = new_server(), new_uuid()
    cloud = Cloud(filtering(of_any_spelling, migrated(tmp_path)), cloud.bare)
    assert cloud.create(server, id=image_id) == image_id
    assert cloud.call("DELETE", f"/v2/images/{spelling(image_id)}", server.user).status == 204
    assert cloud.relations(image_id=image_id)[0]["image_deleted_at"] is not None


def test_refused_deletion_is_not_recorded(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server, protected=True)
    assert cloud.call("DELETE", f"/v2/images/{image_id}", server.user).status == 403
    assert cloud.call("DELETE", f"/v2/images/{image_id}", new_server().user).status in (403, 404)
    assert cloud.relations(image_id=image_id)[0]["image_deleted_at"] is None


def test_concurrent_requests_with_one_id_leave_one_relation(cloud: Cloud) -> None:
    for _ in range(5):
        image_id, project = new_uuid(), new_server().project
        servers = [new_server(project=project) for _ in range(3)]
        with ThreadPoolExecutor(6) as pool:
            create = partial(cloud.try_to_create, id=image_id)
            answers = list(pool.map(create, servers * 2))
        assert sorted(answer.status for answer in answers) == [201, *[409] * 5]
        winner = (servers * 2)[[answer.status for answer in answers].index(201)]
        (relation,) = cloud.relations(image_id=image_id)
        assert relation["instance_id"] == winner.id


App = Callable[..., Iterable[bytes]]


def broken_before(environ: Any, start_response: Any) -> Iterable[bytes]:
    raise ConnectionRefusedError("Glance is down")


def answering(status: str) -> App:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain")])
        return [b""]

    return app


class LostResponse:
    """The real Glance, which creates the image but whose response is lost."""

    def __init__(self, bare: Any) -> None:
        self._bare = bare

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        b"".join(self._bare(environ, lambda *_: None))
        raise BrokenPipeError("gone before it could answer")


def relations_after(app: Any, tmp_path: "Path", body: Any = None) -> list[Any]:
    server = new_server()
    guarded = filtering(app, migrated(tmp_path), database_timeout="60")
    with suppress(ConnectionError):
        wsgi.call(
            guarded, "POST", "/v2/images", server.service | server.headers, body or {"name": "n"}
        )
    found = wsgi.call(guarded, "GET", "/v2/relations", ADMIN).json["relations"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    "app", [broken_before, answering("500 Oops"), answering("503 Busy"), answering("504 Slow")]
)
def test_relation_is_kept_for_reconciliation_if_glance_fails(app: App, tmp_path: "Path") -> None:
    assert len(relations_after(app, tmp_path)) == 1


@pytest.mark.parametrize("status", ["400 No", "401 No", "409 No", "413 No", "300 Many", "204 None"])
def test_relation_is_rolled_back_if_no_image_was_created(status: str, tmp_path: "Path") -> None:
    assert relations_after(answering(status), tmp_path) == []


def test_image_whose_response_was_lost_has_its_relation(cloud: Cloud, tmp_path: "Path") -> None:
    image_id = new_uuid()
    (relation,) = relations_after(LostResponse(cloud.bare), tmp_path, {"id": image_id, "name": "n"})
    assert relation["image_id"] == image_id
    assert cloud.exists(image_id)


def test_without_database_recording_fails_and_other_requests_work(
    cloud: Cloud, tmp_path: "Path"
) -> None:
    server = new_server()
    guarded = filtering(cloud.bare, f"sqlite:///{tmp_path}/none/none.db", database_timeout="0.2")
    refused = wsgi.call(
        guarded, "POST", "/v2/images", server.service | server.headers, {"name": "n"}
    )
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert cloud.total(server.project) == 0
    made = wsgi.call(guarded, "POST", "/v2/images", server.user, {"name": "n"})
    assert made.status == 201
    path = f"/v2/images/{made.json['id']}"
    assert wsgi.call(guarded, "GET", path, server.user).status == 200
    assert wsgi.call(guarded, "DELETE", path, server.user).status == 204
    listed = wsgi.call(guarded, "GET", "/v2/images?limit=1000", server.user).json["images"]
    assert made.json["id"] not in [image["id"] for image in listed]


def test_image_with_two_relations_is_listed_for_both_servers(cloud: Cloud) -> None:
    server, other = new_server(), new_server()
    image_id = cloud.create(server)
    body = {**other.query, "image_id": image_id, "kind": "snapshot"}
    assert cloud.call("POST", "/v2/relations", server.service, body).status == 201
    assert cloud.call("POST", "/v2/relations", server.service, body).status == 200
    for one in (server, other):
        sent_headers = instance_headers(one.installation, one.id)
        assert cloud.image_ids(server.user | sent_headers) == [image_id]
