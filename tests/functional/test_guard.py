"""Delete protection with the real Glance."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from glance.api.middleware.context import ContextMiddleware, UnauthenticatedContextMiddleware

from related_images.db import dependent_summary
from related_images.errors import StoreUnavailable
from tests import wsgi
from tests.filters import StubGlance, filtering, migrated, new_uuid
from tests.functional.cloud import (
    ADMIN,
    Cloud,
    Server,
    a_project,
    glance_option,
    new_server,
    user_of,
)
from tests.functional.test_lineage import a_public_image, asked, start
from tests.servers import Answer

FORCE = {"X-Relation-Force": "true"}


@pytest.fixture(scope="module")
def guarded(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    store = migrated(tmp_path_factory.mktemp("guard"))
    return Cloud(filtering(cloud.bare, store, guard="in-use"), cloud.bare)


def delete(cloud: Cloud, image_id: str, headers: dict[str, str], **more: Any) -> Answer:
    return cloud.call("DELETE", f"/v2/images/{image_id}", headers, **more)


def error(answer: Answer) -> Any:
    return answer.json["error"]


def end(cloud: Cloud, server: Server) -> None:
    answer = cloud.call(
        "DELETE", f"/v2/instances/{server.installation}/{server.id}", server.service
    )
    assert answer.status == 204


def test_image_in_use_is_not_deleted(guarded: Cloud) -> None:
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    answer = delete(guarded, base, ADMIN)
    assert (answer.status, error(answer)["code"]) == (409, "image.in-use")
    assert f"1 live server ({server.id} of {server.installation})" in error(answer)["message"]
    assert guarded.exists(base)
    end(guarded, server)
    assert delete(guarded, base, ADMIN).status == 204
    assert not guarded.exists(base)
    (boot,) = guarded.relations(image_id=base)
    assert boot["image_deleted_at"].endswith("Z")


def test_image_in_use_is_deleted_without_delete_protection(cloud: Cloud) -> None:
    server, base = new_server(), a_public_image(cloud)
    start(cloud, server, base)
    assert delete(cloud, base, ADMIN).status == 204


def test_image_with_descendants_but_no_live_servers_is_deleted(guarded: Cloud) -> None:
    server = new_server()
    image_id = guarded.create(server)
    assert delete(guarded, image_id, server.user).status == 204
    assert guarded.relations(image_id=image_id)[0]["image_deleted_at"]


def test_message_names_the_first_servers_and_counts_all(guarded: Cloud) -> None:
    servers, base = [new_server() for _ in range(7)], a_public_image(guarded)
    for server in servers:
        start(guarded, server, base)
    message = error(delete(guarded, base, ADMIN))["message"]
    assert "7 live servers" in message
    assert [server.id in message for server in servers] == [True] * 5 + [False] * 2


def test_owner_learns_only_that_other_projects_use_the_image(guarded: Cloud) -> None:
    mine, theirs = new_server(), [new_server(), new_server()]
    image_id = guarded.create(mine, visibility="shared")
    for server in theirs:
        body = {"member": server.project}
        path = f"/v2/images/{image_id}/members"
        assert guarded.call("POST", path, mine.user, body).status == 200
        start(guarded, server, image_id)
    message = error(delete(guarded, image_id, mine.user))["message"]
    assert "live resources of other projects" in message
    assert not any(server.id in message or server.project in message for server in theirs)
    assert not any(digit in message.replace(image_id, "") for digit in "0123456789")
    start(guarded, mine, image_id)
    message = error(delete(guarded, image_id, mine.user))["message"]
    assert f"1 live server ({mine.id} of {mine.installation}) and live resources" in message


def test_a_refusal_has_the_summary_that_the_caller_may_get(guarded: Cloud) -> None:
    mine, stranger = new_server(), new_server()
    base = guarded.create(mine, visibility="shared")
    clone = new_server(project=mine.project)
    start(guarded, clone, base)
    start(guarded, new_server(project=mine.project), guarded.create(clone))
    ended = new_server(project=mine.project)
    start(guarded, ended, base)
    end(guarded, ended)
    body = {"member": stranger.project}
    assert guarded.call("POST", f"/v2/images/{base}/members", mine.user, body).status == 200
    start(guarded, stranger, base)
    own = {"live": 2, "ended": 1, "direct": 1, "indirect": 1}
    every = {"live": 3, "ended": 1, "direct": 2, "indirect": 1}
    words = "its dependents, with those of the images made from it, are"
    for caller, counts, said in (
        (mine.user, own, "2 live servers (1 direct, 1 indirect), 1 ended server, of this project"),
        (ADMIN, every, "3 live servers (2 direct, 1 indirect), 1 ended server, of 2 projects"),
    ):
        refused = error(delete(guarded, base, caller))
        assert f"; {words} {said}; list those that use it" in refused["message"]
        assert refused["dependents"]["by_type"] == {"server": counts}
        assert refused["dependents"]["used_by_others"] is True
        assert refused["dependents"] == asked(guarded, base, "dependents/summary", caller)
        forced = delete(guarded, base, mine.user | FORCE)
        assert error(forced)["dependents"]["by_type"] == {"server": own}


def test_no_header_of_a_stranger_reveals_that_an_image_is_in_use(guarded: Cloud) -> None:
    mine, stranger = new_server(), new_server()
    base = guarded.create(mine)
    start(guarded, mine, base)
    long = {"X-OpenStack-Request-ID": "r" * 9000}  # Glance refuses any request with it
    alone = wsgi.call(guarded.bare, "DELETE", f"/v2/images/{base}", stranger.user | long)
    refused = delete(guarded, base, stranger.user | long)
    assert (refused.status, refused.body) == (alone.status, alone.body)
    assert error(delete(guarded, base, mine.user | long))["code"] == "image.in-use"


def test_a_refusal_of_a_deactivation_has_the_summary(cloud: Cloud, tmp_path: Path) -> None:
    actions = {"guard_actions": "delete, deactivate"}
    app = filtering(cloud.bare, migrated(tmp_path), guard="in-use", **actions)
    strict, server = Cloud(app, cloud.bare), new_server()
    base = strict.create(server)
    start(strict, server, base)
    refused = strict.call("POST", f"/v2/images/{base}/actions/deactivate", server.user)
    assert (refused.status, error(refused)["code"]) == (409, "image.in-use")
    assert "1 live server (1 direct, 0 indirect), of this project" in error(refused)["message"]
    summary = asked(strict, base, "dependents/summary", server.user)
    assert error(refused)["dependents"] == summary


def test_callers_who_may_not_count_dependents_get_no_summary(
    guarded: Cloud, cloud: Cloud, tmp_path: Path
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("related_images:dependents:show: role:admin")
    app = filtering(cloud.bare, migrated(tmp_path), guard="in-use", policy_file=str(rules))
    closed, server = Cloud(app, cloud.bare), new_server()
    base = closed.create(server)
    start(closed, server, base)
    assert "dependents" in error(delete(closed, base, ADMIN))
    unidentified = a_public_image(guarded)
    start(guarded, server, unidentified)
    for refused in (delete(closed, base, server.user), delete(guarded, unidentified, {})):
        assert (refused.status, error(refused)["code"]) == (409, "image.in-use")
        assert "dependents" not in error(refused)
        assert "its dependents" not in error(refused)["message"]


def test_an_image_stays_protected_if_its_dependents_cannot_be_counted(
    guarded: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_server()
    base = guarded.create(server)
    start(guarded, server, base)

    def unavailable(*_: Any) -> None:
        raise StoreUnavailable("too slow")

    monkeypatch.setattr(dependent_summary, "summary", unavailable)
    refused = delete(guarded, base, server.user)
    assert (refused.status, error(refused)["code"]) == (409, "image.in-use")
    assert "dependents" not in error(refused)
    assert f"the dependents of image {base} are not counted: too slow" in caplog.text


def test_the_summary_in_a_refusal_is_a_lower_bound_after_the_longest_time(
    guarded: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()
    base = guarded.create(server)
    start(guarded, server, base)
    monkeypatch.setattr(dependent_summary, "MOST", 1)
    refused = error(delete(guarded, base, server.user))
    assert refused["dependents"]["lower_bound"] is True
    assert "at least 1 live server (1 direct, 0 indirect), of this project" in refused["message"]


def test_invisible_image_is_answered_as_a_missing_one(
    guarded: Cloud,
) -> None:
    server, stranger = new_server(), user_of(a_project())
    image_id = guarded.create(server)
    start(guarded, server, image_id)
    hidden, missing = delete(guarded, image_id, stranger), delete(guarded, new_uuid(), stranger)
    assert hidden.status == missing.status == 404
    assert b"error" not in hidden.body
    assert len(hidden.body) == len(missing.body)


class FailingGlance:
    """A Glance that answers each GET of an image with ``status`` once that is set."""

    def __init__(self, glance: Any) -> None:
        self.glance, self.status = glance, ""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if self.status and environ["REQUEST_METHOD"] == "GET":
            start_response(self.status, [("Content-Type", "text/plain")])
            return [b""]
        result: Iterable[bytes] = self.glance(environ, start_response)
        return result


@pytest.fixture
def shaky(cloud: Cloud) -> FailingGlance:
    return FailingGlance(cloud.bare)


@pytest.fixture
def used(shaky: FailingGlance, cloud: Cloud, tmp_path: Path) -> tuple[Cloud, Server, str]:
    """An image from which a server was started, with delete protection in front of that Glance."""
    before = Cloud(filtering(shaky, migrated(tmp_path), guard="in-use"), cloud.bare)
    server = new_server()
    image_id = before.create(server)
    start(before, server, image_id)
    return before, server, image_id


@pytest.mark.parametrize(
    "status",
    ["503 Service Unavailable", "500 Internal Server Error", "429 Too Many Requests", "200 OK"],
)
def test_image_stays_protected_if_glance_fails_to_show_it(
    shaky: FailingGlance, used: tuple[Cloud, Server, str], status: str
) -> None:
    cloud, server, image_id = used
    shaky.status = status
    answer = delete(cloud, image_id, server.user)
    assert (answer.status, error(answer)["code"]) == (409, "image.in-use")
    assert cloud.exists(image_id)


def test_hidden_image_that_glance_deletes_is_marked_deleted(
    shaky: FailingGlance, used: tuple[Cloud, Server, str]
) -> None:
    cloud, server, image_id = used
    shaky.status = "404 Not Found"
    assert delete(cloud, image_id, server.user).status == 204
    assert not cloud.exists(image_id)
    shaky.status = ""
    assert all(relation["image_deleted_at"] for relation in cloud.relations(image_id=image_id))


def test_admin_may_force_a_deletion_and_it_is_logged(
    guarded: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    caplog.set_level(logging.WARNING)
    caplog.clear()
    assert delete(guarded, base, ADMIN | FORCE).status == 204
    (logged,) = [record.getMessage() for record in caplog.records if base in record.getMessage()]
    assert "forced by user admin of project admin-project, although 1 live resources" in logged


@pytest.mark.parametrize("value", ["false", "", "1", "yes", "true, true"])
def test_other_header_values_do_not_force(guarded: Cloud, value: str) -> None:
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    assert delete(guarded, base, ADMIN | {"X-Relation-Force": value}).status == 409


def test_unidentified_caller_does_not_bypass_delete_protection(guarded: Cloud) -> None:
    """Without keystonemiddleware Glance may treat every caller as an administrator."""
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    answer = delete(guarded, base, {})
    assert (answer.status, error(answer)["code"]) == (409, "image.in-use")


def test_anonymous_caller_learns_nothing_about_an_invisible_image(guarded: Cloud) -> None:
    """Glance may admit requests whose token keystonemiddleware did not confirm."""
    server = new_server()
    private = guarded.create(server)
    start(guarded, server, private)
    with glance_option("allow_anonymous_access", True):
        for who in ({}, {"X-Identity-Status": "Invalid"}):
            refused, unknown = (delete(guarded, image, who) for image in (private, new_uuid()))
            assert refused.status == unknown.status == 403  # an anonymous caller may only read
            assert b"image.in-use" not in refused.body
    assert guarded.exists(private)


def test_every_caller_of_a_glance_without_authentication_is_checked(
    guarded: Cloud, cloud: Cloud
) -> None:
    """Whatever identity it states, and whether or not Glance shows it the image."""
    unauthenticated = Cloud(UnauthenticatedContextMiddleware(guarded.app), cloud.bare)
    server = new_server()
    image = guarded.create(server)
    start(guarded, server, image)
    stranger = user_of(a_project())
    for who in ({}, stranger, {"X-Identity-Status": "Invalid"}):
        refused = delete(unauthenticated, image, who)
        assert (refused.status, error(refused)["code"]) == (409, "image.in-use")


def test_anonymous_caller_neither_learns_of_a_use_nor_delays_a_start(
    guarded: Cloud, cloud: Cloud, tmp_path: Path
) -> None:
    server, later, image = new_server(), new_server(), a_public_image(cloud)

    def glance(environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "DELETE":
            start(behind_context, later, image)  # fails if the filter has begun a deletion
        else:  # legacy policies of Glance show public images to anonymous callers
            environ |= wsgi.environ_of("GET", "/", ADMIN) | {"PATH_INFO": environ["PATH_INFO"]}
        return cloud.bare(environ, start_response)

    app = filtering(glance, migrated(tmp_path), guard="in-use")
    behind_context = Cloud(app, cloud.bare)
    anonymous = Cloud(ContextMiddleware(app), cloud.bare)
    with glance_option("allow_anonymous_access", True):
        assert delete(anonymous, image, {}).status == 403
        start(behind_context, server, image)
        assert delete(anonymous, image, {}).status == 403


@pytest.mark.parametrize("mount", ["/v2", "/image/v2"])
def test_a_mount_point_does_not_tell_others_of_a_use(guarded: Cloud, mount: str) -> None:
    """A proxy may state a mount point, and Glance then takes it from the request."""
    server = new_server()
    image = guarded.create(server)
    start(guarded, server, image)
    environ = wsgi.environ_of("DELETE", f"/v2/images/{image}", user_of(a_project()))
    answer = wsgi.run(guarded.app, environ | {"SCRIPT_NAME": mount})
    assert b"image.in-use" not in answer.body
    assert guarded.exists(image)


def test_other_callers_cannot_force_and_the_message_names_the_roles(guarded: Cloud) -> None:
    server = new_server()
    image_id = guarded.create(server)
    start(guarded, server, image_id)
    advice = f"`openstack image force delete {image_id}`"
    for caller in (server.user, server.service):
        assert advice in error(delete(guarded, image_id, caller))["message"]
        refused = delete(guarded, image_id, caller | FORCE)
        assert refused.status == 409
        assert "the caller has none of these admin roles: admin" in error(refused)["message"]
    assert guarded.exists(image_id)


@pytest.mark.parametrize("guard", ["off", "in-use"])
def test_force_header_does_not_reach_glance(tmp_path: Path, guard: str) -> None:
    stub_glance = StubGlance()
    app = filtering(stub_glance, migrated(tmp_path), guard=guard)
    for method, path in (
        ("DELETE", f"/v2/images/{new_uuid()}"),
        ("GET", "/v2/tasks"),
        ("GET", "/"),
    ):
        wsgi.call(app, method, path, ADMIN | FORCE)
    assert len(stub_glance.seen) == 3
    assert stub_glance.instance_headers_seen() == []


PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("method", "query", "more"),
    [
        ("GET", "?_method=DELETE", {}),
        ("GET", "?a=b&_method=de%FFlete", {}),
        ("PUT", "?_method=DELETE", {}),
        ("POST", "", FORM),
        ("POST", "", {"Content-Type": "multipart/form-data; boundary=b"}),
    ],
)
def test_method_override_does_not_bypass_delete_protection(
    guarded: Cloud, method: str, query: str, more: dict[str, str]
) -> None:
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    path = f"/v2/images/{base}{query}"
    answer = guarded.call(method, path, ADMIN | more, b"_method=DELETE")
    assert answer.status == 409
    assert guarded.exists(base)


@pytest.mark.parametrize(
    ("method", "query"), [("GET", ""), ("GET", "?x=_method"), ("GET", "?_method=GET"), ("POST", "")]
)
def test_requests_that_delete_nothing_pass(guarded: Cloud, method: str, query: str) -> None:
    server, base = new_server(), a_public_image(guarded)
    start(guarded, server, base)
    path = f"/v2/images/{base}{query}"
    answer, bare = (wsgi.call(app, method, path, ADMIN) for app in (guarded.app, guarded.bare))
    assert (answer.status, answer.body) == (bare.status, bare.body)


@pytest.mark.parametrize("visibility", ["public", "community"])
def test_refusal_of_another_project_does_not_depend_on_use(guarded: Cloud, visibility: str) -> None:
    owner, stranger = new_server(), user_of(a_project())
    used, free = (guarded.create(owner) for _ in range(2))
    for image_id in (used, free):
        change = [{"op": "replace", "path": "/visibility", "value": visibility}]
        assert guarded.call("PATCH", f"/v2/images/{image_id}", ADMIN | PATCH, change).status == 200
    start(guarded, owner, used)
    refused = delete(guarded, used, stranger), delete(guarded, free, stranger)
    assert [answer.status for answer in refused] == [403, 403]
    assert refused[0].body.replace(used.encode(), free.encode()) == refused[1].body


def test_deletion_refused_by_glance_blocks_no_boot(guarded: Cloud) -> None:
    server = new_server()
    image_id = guarded.create(server, protected=True)
    assert delete(guarded, image_id, server.user).status == 403
    start(guarded, server, image_id)
    assert guarded.relations(image_id=image_id)[0]["image_deleted_at"] is None


def test_boot_of_an_image_that_is_being_deleted_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    """The response of Glance is delayed; the server is started before and after it."""
    server = new_server()
    answers: list[Answer] = []

    def held(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "DELETE":
            with ThreadPoolExecutor() as pool:
                answers.append(pool.submit(attach).result())
        result: Iterable[bytes] = cloud.bare(environ, start_response)
        return result

    def attach() -> Answer:
        body = {
            "installation_uuid": server.installation,
            "instance_id": server.id,
            "image_id": image_id,
            "kind": "boot",
        }
        return slow.call("POST", "/v2/relations", server.service, body)

    slow = Cloud(filtering(held, migrated(tmp_path), guard="in-use"), cloud.bare)
    image_id = slow.create(server)
    assert delete(slow, image_id, server.user).status == 204
    assert (answers[0].status, error(answers[0])["code"]) == (409, "image.being-deleted")
    assert attach().status == 404
    assert [relation["kind"] for relation in slow.relations(image_id=image_id)] == ["snapshot"]


def test_deletion_by_another_project_blocks_no_boot(cloud: Cloud, tmp_path: Path) -> None:
    """The deletion, which Glance will refuse, is delayed in Glance."""
    server, base = new_server(), a_public_image(cloud)

    def held(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "DELETE":
            with ThreadPoolExecutor() as pool:
                pool.submit(start, slow, server, base).result()
        result: Iterable[bytes] = cloud.bare(environ, start_response)
        return result

    slow = Cloud(filtering(held, migrated(tmp_path), guard="in-use"), cloud.bare)
    assert delete(slow, base, user_of(a_project())).status == 403
    assert [relation["kind"] for relation in slow.relations(image_id=base)] == ["boot"]


def test_boot_of_an_image_marked_deleted_is_recorded_if_glance_has_it(
    cloud: Cloud, tmp_path: Path
) -> None:
    def keeping(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "DELETE":
            start_response("204 No Content", [])
            return [b""]
        result: Iterable[bytes] = cloud.bare(environ, start_response)
        return result

    wrong = Cloud(filtering(keeping, migrated(tmp_path), guard="in-use"), cloud.bare)
    server = new_server()
    image_id = wrong.create(server)
    assert delete(wrong, image_id, server.user).status == 204
    start(wrong, server, image_id)
    assert {r["image_deleted_at"] for r in wrong.relations(image_id=image_id)} == {None}


def test_deletions_pass_while_the_database_is_down(cloud: Cloud, tmp_path: Path) -> None:
    nowhere = f"sqlite:///{tmp_path}/none/none.db"
    app = filtering(cloud.bare, nowhere, guard="in-use", database_timeout="0.2")
    base = a_public_image(cloud)
    assert wsgi.call(app, "DELETE", f"/v2/images/{base}", ADMIN).status == 204
    assert not cloud.exists(base)


def test_info_has_the_guard_option(guarded: Cloud, cloud: Cloud) -> None:
    assert guarded.call("GET", "/v2/info/relations", ADMIN).json["guard"] == "in-use"
    assert cloud.call("GET", "/v2/info/relations", ADMIN).json["guard"] == "off"
