"""The filter's own routes: fields, paging, filters and visibility."""

import base64
import json
import logging
from itertools import pairwise
from typing import Any

import jsonschema
import pytest

from related_images.middleware import routing
from related_images.protocol import schemas
from tests import wsgi
from tests.filters import instance_headers, new_uuid
from tests.functional.cloud import (
    ADMIN,
    SERVICE_TOKEN,
    Cloud,
    Server,
    a_project,
    new_server,
    user_of,
)
from tests.servers import Answer

KINDS = ("snapshot", "backup")


def fits(cloud: Cloud, name: str, body: Any) -> None:
    """Check ``body`` against the schema published as ``name``."""
    published = cloud.call("GET", f"/v2/schemas/{name}", user_of("anybody")).json
    assert published == schemas.SCHEMAS[name]
    jsonschema.validate(
        body, published, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker()
    )


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, str(answer.json["error"]["code"])


def without_request_id(answer: Answer) -> Any:
    body = answer.json
    assert body["error"].pop("request_id").startswith("req-")
    return body


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    """A server with two snapshots and three backups; its project has another server."""
    server = new_server()
    for kind, label in (
        *(("snapshot", None), ("backup", "daily"), ("backup", "daily")),
        *(("backup", "weekly"), ("snapshot", "daily")),
    ):
        more = {"kind": kind} | ({"label": label} if label else {})
        sent_headers = server.headers | instance_headers(server.installation, server.id, **more)
        assert (
            cloud.call("POST", "/v2/images", server.service | sent_headers, {"name": "n"}).status
            == 201
        )
    cloud.create(new_server(server.installation, project=server.project))
    return server


def ids(found: list[list[dict[str, Any]]]) -> list[str]:
    return [row["image_id"] for page in found for row in page]


def test_relations_are_newest_first_and_match_their_schema(cloud: Cloud, server: Server) -> None:
    answer = cloud.call("GET", "/v2/relations", server.user)
    fits(cloud, "relations", answer.json)
    rows = answer.json["relations"]
    assert len(rows) == 6
    for newer, older in pairwise(rows):
        assert newer["created_at"] >= older["created_at"]
    for row in rows:
        fits(cloud, "relation", row)


@pytest.mark.parametrize("query", ["", "&kind=backup", "&label=daily", "&source=service"])
@pytest.mark.parametrize("who", ["project", "admin"])
def test_relations_are_paged(cloud: Cloud, server: Server, query: str, who: str) -> None:
    caller = server.user if who == "project" else ADMIN
    path = f"/v2/relations?installation_uuid={server.installation}{query}"
    (whole,) = cloud.pages(path, caller, "relations")
    assert len(whole) >= 2
    pages = cloud.pages(f"{path}&limit=1", caller, "relations")
    assert [len(page) for page in pages] == [1] * len(whole)
    assert [row for page in pages for row in page] == whole


def test_servers_are_paged(cloud: Cloud, server: Server) -> None:
    (whole,) = cloud.pages("/v2/instances", server.user, "instances")
    pages = cloud.pages("/v2/instances?limit=1", server.user, "instances")
    assert [row for page in pages for row in page] == whole
    assert len(whole) == 2
    fits(cloud, "instances", cloud.call("GET", "/v2/instances", server.user).json)


def test_pages_are_stable_while_relations_are_added(cloud: Cloud) -> None:
    server = new_server()
    made = [cloud.create(server) for _ in range(3)]
    first = cloud.call("GET", f"/v2/relations?instance_id={server.id}&limit=2", server.user).json
    cloud.create(server)
    rest = cloud.call("GET", first["next"], server.user).json
    assert ids([first["relations"], rest["relations"]]) == made[::-1]


FILTERS = [
    ({"kind": "snapshot"}, 3),
    ({"kind": "backup"}, 3),
    ({"kind": "boot"}, 0),
    ({"label": "daily"}, 3),
    ({"label": "daily", "kind": "backup"}, 2),
    ({"label": "monthly"}, 0),
    ({"source": "service"}, 6),
    ({"source": "manual"}, 0),
    ({"created_after": "2020-01-01"}, 6),
    ({"created_after": "2099-01-01T00:00:00Z"}, 0),
    ({"created_before": "2099-01-01T00:00:00+05:00"}, 6),
    ({"created_before": "2020-01-01"}, 0),
    ({"installation_uuid": new_uuid()}, 0),
    ({"instance_id": "unknown"}, 0),
    ({"image_id": new_uuid()}, 0),
    ({"project_id": "another"}, 0),
]


@pytest.mark.parametrize(("query", "count"), FILTERS)
def test_relation_filters(cloud: Cloud, server: Server, query: dict[str, str], count: int) -> None:
    words = "&".join(f"{name}={text.replace('+', '%2B')}" for name, text in query.items())
    answer = cloud.call("GET", f"/v2/relations?{words}", server.user)
    assert len(answer.json["relations"]) == count
    assert answer.json["first"].startswith("/v2/relations?")


def test_relations_by_server_image_and_project(cloud: Cloud, server: Server) -> None:
    assert len(cloud.relations(**server.query)) == 5
    assert len(cloud.relations(instance_id=server.id)) == 5
    assert len(cloud.relations(installation_uuid=server.installation)) == 6
    assert len(cloud.relations(project_id=server.project)) == 6
    one = cloud.relations(**server.query)[0]
    assert cloud.relations(image_id=one["image_id"]) == [one]
    of_image = cloud.call("GET", f"/v2/images/{one['image_id']}/relations", server.user)
    assert of_image.json["relations"] == [one]
    fits(cloud, "relations", of_image.json)


def test_server_has_the_counts_and_dates_of_its_images(cloud: Cloud, server: Server) -> None:
    shown = cloud.call("GET", f"/v2/instances/{server.installation}/{server.id}", server.user)
    assert shown.status == 200
    fits(cloud, "instance", shown.json)
    rows = cloud.relations(**server.query)
    for kind, count in (("snapshot", 2), ("backup", 3)):
        times = [row["created_at"] for row in rows if row["kind"] == kind]
        images = shown.json["images"][kind]
        assert (images["count"], images["oldest_at"], images["latest_at"]) == (
            *(count, min(times), max(times)),
        )
        latest = next(row for row in rows if row["kind"] == kind)
        assert images["latest_image_id"] == latest["image_id"]
    assert (shown.json["project_id"], shown.json["ended_at"]) == (server.project, None)


def test_servers_without_an_image_since(cloud: Cloud, server: Server) -> None:
    path = f"/v2/instances?instance_id={server.id}&latest_before="
    (one,) = cloud.call("GET", f"{path}2099-01-01", server.user).json["instances"]
    assert one["instance_id"] == server.id
    assert cloud.call("GET", f"{path}2020-01-01", server.user).json["instances"] == []
    overdue = cloud.call("GET", f"{path}2020-01-01&kind=boot", server.user).json["instances"]
    assert [row["instance_id"] for row in overdue] == [server.id]


def test_relation_is_attached_and_detached(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.call("POST", "/v2/images", server.user, {"name": "n"}).json["id"]
    body = {**server.query, "image_id": image_id, "kind": "backup", "label": "daily"}
    first = cloud.call("POST", "/v2/relations", server.service, body)
    again = cloud.call("POST", "/v2/relations", server.service, body)
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json == cloud.relations(**server.query)[0]
    fits(cloud, "relation", first.json)
    other = cloud.call("POST", "/v2/relations", server.service, body | {"label": "weekly"})
    assert code_of(other) == (409, "relation.conflict")
    gone = cloud.call("DELETE", first.json["self"], server.service)
    assert (gone.status, gone.body) == (204, b"")
    assert code_of(cloud.call("DELETE", first.json["self"], server.service)) == (
        *(404, "relation.not-found"),
    )
    assert cloud.relations(**server.query) == []


def own(report: str, created_at: str = "") -> str:
    """Return the query that rolls back the caller's own report."""
    at = f"&created_at={created_at}" if created_at else ""
    return f"?own_report={report}{at}"


def test_attachment_is_rolled_back_and_the_relation_stays_for_others(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(new_server(project=server.project))
    body = server.query | {"image_id": image_id, "kind": "backup"}
    first, again = (cloud.call("POST", "/v2/relations", server.service, body) for _ in range(2))
    assert (first.status, again.status) == (201, 200)
    taking_back = first.json["self"] + own("attachment", first.json["created_at"])
    left = cloud.call("DELETE", taking_back, server.service)
    assert (left.status, left.json) == (200, first.json)
    assert cloud.call("DELETE", taking_back, server.user).status == 403
    assert cloud.call("DELETE", taking_back, server.service).status == 204
    assert code_of(cloud.call("DELETE", taking_back, server.service)) == (404, "relation.not-found")
    assert cloud.relations(**server.query) == []


def test_attachment_of_an_earlier_relation_is_not_rolled_back(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(new_server(project=server.project))
    body = server.query | {"image_id": image_id, "kind": "backup"}
    shown = cloud.call("POST", "/v2/relations", server.service, body).json
    earlier = own("attachment", "2020-01-01T00:00:00Z")
    refused = cloud.call("DELETE", shown["self"] + earlier, server.service)
    assert code_of(refused) == (404, "relation.not-found")
    assert cloud.relations(**server.query) == [shown]


def test_creation_is_rolled_back_and_the_relation_stays_for_others(
    cloud: Cloud,
) -> None:
    server = new_server()
    alone, shared = cloud.create(server), cloud.create(server)
    body = server.query | {"image_id": shared, "kind": "snapshot"}
    assert cloud.call("POST", "/v2/relations", server.service, body).status == 200
    for image_id, status in ((alone, 204), (shared, 200)):
        (shown,) = cloud.relations(**server.query, image_id=image_id)
        answer = cloud.call("DELETE", shown["self"] + own("creation"), server.service)
        assert answer.status == status
    assert [row["image_id"] for row in cloud.relations(**server.query)] == [shared]


@pytest.mark.parametrize(
    "query",
    [
        "?own_report=all",
        "?own_report=attachment",
        "?created_at=2026-01-01T00:00:00Z",
        "?own_report=creation&created_at=2026-01-01T00:00:00Z",
        "?own_report=attachment&created_at=noon",
    ],
)
def test_ambiguous_roll_back_is_refused(cloud: Cloud, query: str) -> None:
    server = new_server()
    image_id = cloud.create(server)
    (shown,) = cloud.relations(**server.query)
    answer = cloud.call("DELETE", shown["self"] + query, server.service)
    assert code_of(answer) == (400, "parameter.malformed")
    assert [row["image_id"] for row in cloud.relations(**server.query)] == [image_id]


@pytest.mark.parametrize("known", [True, False])
def test_only_a_visible_image_is_attached(cloud: Cloud, known: bool) -> None:
    server, stranger = new_server(), new_server()
    image_id = cloud.create(stranger) if known else new_uuid()
    body = {**server.query, "image_id": image_id, "kind": "backup"}
    answer = cloud.call("POST", "/v2/relations", server.service, body)
    assert code_of(answer) == (404, "image.not-found")
    assert cloud.relations(**server.query) == []


def test_server_deletion_is_recorded_once(cloud: Cloud) -> None:
    server = new_server()
    image_id = cloud.create(server)
    path = f"/v2/instances/{server.installation}/{server.id}"
    assert cloud.call("DELETE", path, server.service).status == 204
    ended_at = cloud.call("GET", path, server.user).json["ended_at"]
    assert ended_at.endswith("Z")
    assert cloud.call("DELETE", path, server.service).status == 204
    assert cloud.call("GET", path, server.user).json["ended_at"] == ended_at
    assert cloud.image_ids(server.user | server.headers) == [image_id]


def test_admin_removes_despite_the_binding(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    server = new_server()
    image_id = cloud.create(server)
    users = [{"user_id": "nova-of-another"}]
    body = {"uuid": server.installation, "name": "n", "service_users": users}
    assert cloud.call("POST", "/v2/installations", ADMIN, body).status == 201
    caplog.set_level(logging.INFO)
    instance = f"/v2/instances/{server.installation}/{server.id}"
    relation = f"/v2/images/{image_id}/relations/{server.installation}/{server.id}/snapshot"
    for path in (instance, relation):
        assert code_of(cloud.call("DELETE", path, server.service)) == (403, "installation.bound")
        assert code_of(cloud.call("DELETE", path, server.user)) == (403, "relation.forbidden")
    caplog.clear()
    assert cloud.call("DELETE", instance, ADMIN).status == 204
    assert cloud.call("GET", instance, server.user).json["ended_at"].endswith("Z")
    assert [row["source"] for row in cloud.relations(**server.query)] == ["service"]
    assert cloud.call("DELETE", relation, ADMIN).status == 204
    assert cloud.relations(**server.query) == []
    by = "administrator, user 'admin' of project 'admin-project' [req-"
    lines = [it for it in caplog.messages if server.id in it]
    assert [it.split(": ", 1)[1].startswith(by) for it in lines] == [True, True]


def test_removal_by_a_service_is_logged_with_both_users(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_server()
    cloud.create(server)
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert (
        cloud.call(
            "DELETE", f"/v2/instances/{server.installation}/{server.id}", server.service
        ).status
        == 204
    )
    (line,) = [it for it in caplog.messages if "was deleted" in it]
    user = f"user 'user-of-{server.project}' of project '{server.project}'"
    assert f"was deleted: service, {user} through service user 'nova' [req-" in line


def test_installations_are_registered_bound_and_unregistered(cloud: Cloud) -> None:
    server = new_server()
    by_type: list[schemas.Json] = [{"user_id": "nova", "resource_types": ["volume"]}]
    users = [{"user_id": "nova-of-another"}, *by_type]
    body = {"uuid": server.installation, "name": "n", "service_users": users}
    first = cloud.call("POST", "/v2/installations", ADMIN, body)
    assert first.status == 201
    assert first.json["service_users"] == [{**users[0], "resource_types": None}, *by_type]
    assert cloud.call("POST", "/v2/installations", ADMIN, body).json == first.json
    reordered = body | {"service_users": users[::-1]}
    assert cloud.call("POST", "/v2/installations", ADMIN, reordered).json == first.json
    changes: list[schemas.Json] = [{"name": "m"}, {"service_users": by_type}, {"service_users": []}]
    for change in changes:
        conflict = cloud.call("POST", "/v2/installations", ADMIN, body | change)
        assert code_of(conflict) == (409, "installation.conflict")
    assert first.json in cloud.call("GET", "/v2/installations", ADMIN).json["installations"]
    refused = cloud.try_to_create(server)
    assert code_of(refused) == (403, "installation.bound")
    assert "of the type volume, not of the type server" in refused.json["error"]["message"]
    assert cloud.total(server.project) == 0
    path = f"/v2/installations/{server.installation}"
    assert cloud.call("DELETE", path, ADMIN).status == 204
    assert code_of(cloud.call("DELETE", path, ADMIN)) == (404, "installation.not-found")
    cloud.create(server)


def filled(template: str) -> str:
    ids = {"image_id": new_uuid(), "installation_uuid": new_uuid(), "instance_id": "i"}
    return "/v2" + template.format(**ids, kind="boot", uuid="u", name="stack")


@pytest.mark.parametrize("template", routing.ROUTES)
def test_other_methods_get_405_with_allow(cloud: Cloud, template: str) -> None:
    path = filled(template)
    answered = set(routing.ROUTES[template])
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} - answered:
        answer = cloud.call(method, path, ADMIN | SERVICE_TOKEN)
        assert answer.status == 405
        assert answer.headers["Allow"] == ", ".join(sorted(answered))
        assert bool(answer.body) is (method != "HEAD")


@pytest.mark.parametrize("template", routing.ROUTES)
def test_unidentified_caller_gets_401(cloud: Cloud, template: str) -> None:
    path = filled(template)
    for method in routing.ROUTES[template]:
        answer = cloud.call(method, path, {"X-Identity-Status": "Invalid"})
        assert answer.status == 401


def strangers_view(cloud: Cloud, server: Server) -> list[tuple[str, str]]:
    """Return pairs of paths: a resource of another project, and a missing one."""
    row = cloud.relations(**server.query)[0]
    image_id, nothing = row["image_id"], new_uuid()
    return [
        (f"/v2/images/{image_id}/relations", f"/v2/images/{nothing}/relations"),
        (f"/v2/images/{image_id}/ancestry", f"/v2/images/{nothing}/ancestry"),
        (f"/v2/images/{image_id}/descendants", f"/v2/images/{nothing}/descendants"),
        (
            f"/v2/instances/{server.installation}/{server.id}",
            f"/v2/instances/{server.installation}/{nothing}",
        ),
        (
            f"/v2/instances/{server.installation}/{server.id}",
            f"/v2/instances/{nothing}/{server.id}",
        ),
    ]


def test_resources_of_another_project_are_answered_as_missing(cloud: Cloud, server: Server) -> None:
    stranger = user_of(a_project())
    for theirs, nothing in strangers_view(cloud, server):
        one, other = (cloud.call("GET", path, stranger) for path in (theirs, nothing))
        assert one.status == other.status == 404
        bodies = json.dumps(without_request_id(one)), json.dumps(without_request_id(other))
        parts = (theirs.split("/")[3:], nothing.split("/")[3:])
        for mine, none in zip(*parts, strict=True):
            bodies = bodies[0].replace(mine, "X"), bodies[1].replace(none, "X")
        assert bodies[0] == bodies[1]


LISTS = ["/v2/relations", "/v2/instances"]


@pytest.mark.parametrize("path", LISTS)
def test_lists_have_nothing_of_other_projects(cloud: Cloud, server: Server, path: str) -> None:
    project = a_project()
    own = new_server(server.installation, server.id, project)
    cloud.create(own)
    image_id = cloud.relations(**server.query)[-1]["image_id"]
    key = path.rpartition("/")[2]
    for query in (
        *(
            "",
            f"?installation_uuid={server.installation}",
            f"?instance_id={server.id}",
            "?kind=snapshot",
        ),
        *(f"?project_id={server.project}", f"?image_id={image_id}", "?limit=1"),
    ):
        answer = cloud.call("GET", path + query, own.user)
        assert answer.status == 200
        assert len(answer.json[key]) <= 1
        assert "next" not in answer.json
        assert server.project not in json.dumps(answer.json[key])
        assert image_id not in json.dumps(answer.json[key])


def test_counts_and_project_of_a_server_are_hidden_from_other_projects(
    cloud: Cloud, server: Server
) -> None:
    own = new_server(server.installation, server.id)
    image_id = cloud.create(own)
    shown = cloud.call("GET", f"/v2/instances/{server.installation}/{server.id}", own.user).json
    assert shown["images"]["snapshot"]["count"] == 1
    assert shown["images"]["snapshot"]["latest_image_id"] == image_id
    assert list(shown["images"]) == ["snapshot"]
    assert server.project not in json.dumps(shown)


def forged(*parts: str) -> str:
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def test_forged_marker_reveals_nothing(cloud: Cloud, server: Server) -> None:
    own = new_server(server.installation)
    cloud.create(own)
    mine, theirs = cloud.relations(**own.query)[0], cloud.relations(**server.query)[0]

    def marker_of(row: dict[str, Any], time: str) -> str:
        names = ("image_id", "installation_uuid", "instance_id", "kind")
        return forged(time, *(row[name] for name in names))

    def page(row: dict[str, Any]) -> Any:
        path = f"/v2/relations?marker={marker_of(row, mine['created_at'])}"
        return cloud.call("GET", path, own.user).json

    nothing = theirs | {"image_id": new_uuid()}
    assert page(theirs) == page(nothing)
    unknown = theirs | {"instance_id": "unknown"}
    assert page(theirs) == page(unknown)
    assert page(mine)["relations"] == []


def test_marker_of_another_projects_server_is_unknown(cloud: Cloud, server: Server) -> None:
    theirs = cloud.call("GET", "/v2/instances?limit=1", server.user).json["next"]
    stranger = user_of(a_project())
    seen = cloud.call("GET", theirs, stranger)
    marker = theirs.rpartition("marker=")[2]
    decoded = base64.urlsafe_b64decode(marker + "==").decode()
    made_up = decoded.replace(server.id, "unknown").replace(server.installation, new_uuid())
    unknown = cloud.call("GET", f"/v2/instances?marker={forged(made_up)}", stranger)
    assert seen.status == unknown.status
    if seen.status == 200:
        assert seen.json["instances"] == unknown.json["instances"] == []
    else:
        assert without_request_id(seen) == without_request_id(unknown)


def test_refused_attachment_does_not_reveal_relations(cloud: Cloud, server: Server) -> None:
    row = cloud.relations(**server.query)[0]
    body = {name: row[name] for name in ("installation_uuid", "instance_id", "image_id", "kind")}
    stranger = user_of(a_project())
    answers = [
        cloud.call("POST", "/v2/relations", stranger, body | {"image_id": image_id})
        for image_id in (row["image_id"], new_uuid())
    ]
    assert [answer.status for answer in answers] == [403, 403]
    assert without_request_id(answers[0]) == without_request_id(answers[1])
    gone = [cloud.call("DELETE", path, stranger) for path in (row["self"], row["self"] + "x")]
    assert [code_of(answer) for answer in gone] == [(403, "relation.forbidden")] * 2


def test_service_sees_all_projects(cloud: Cloud, server: Server) -> None:
    service = user_of(a_project()) | SERVICE_TOKEN
    path = f"/v2/relations?instance_id={server.id}&installation_uuid={server.installation}"
    seen = cloud.call("GET", path, service).json["relations"]
    assert seen == cloud.relations(**server.query)
    assert {row["project_id"] for row in seen} >= {server.project}


def test_caller_without_project_sees_nothing(cloud: Cloud, server: Server) -> None:
    nobody = {name: text for name, text in server.user.items() if name != "X-Project-Id"}
    assert cloud.call("GET", "/v2/relations", nobody).json["relations"] == []
    assert cloud.call("GET", "/v2/instances", nobody).json["instances"] == []
    assert len(cloud.relations(**server.query)) >= 5


def test_info_of_the_deployment(cloud: Cloud, server: Server) -> None:
    info = cloud.call("GET", "/v2/info/relations", user_of(a_project())).json
    assert info["kinds"] == ["snapshot", "backup", "shelved", "boot", "use"]
    assert info["limits"]["page"] == 1000
    assert info["database"] == "up"
    assert info["unreconciled"] is None
    info = wsgi.call(cloud.app, "GET", "/v2/info/relations", ADMIN).json
    assert info["unreconciled"] > 0
