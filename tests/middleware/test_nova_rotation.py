"""Nova's own backup rotation gets only the recorded, active backups of the server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from sqlalchemy.engine import make_url

from related_images.config import load
from related_images.db import Database, installations, recorded_backups, schema
from related_images.middleware import InstanceAwareMiddleware
from related_images.model import ServiceUser
from tests.wsgi import call, environ_of, identity, run

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_NOVA = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
INSTANCE = "6f70656e-7374-6163-6b20-6e6f76612031"
USER = identity("alice", "demo")
ADMIN = identity("root", "administration", "admin", "member", "reader")
SERVICE_TOKEN = {
    "X-Service-Identity-Status": "Confirmed",
    "X-Service-Roles": "service",
    "X-Service-User-Id": "nova",
}
BY_NOVA = {**USER, **SERVICE_TOKEN}
ACKNOWLEDGED = "installation_uuid, instance_id, kind"


class Cloud:
    """A Glance with the filter and its own database."""

    def __init__(self, app: "WSGIApplication", url: str, **options: str) -> None:
        self.database = Database(url, 2.0)
        settings = load("test", {"connection": url, "nova_rotation": "verified", **options})
        self.app = InstanceAwareMiddleware(app, settings)

    def backup(
        self,
        installation: str | None = NOVA,
        *,
        caller: dict[str, str] = USER,
        label: str = "daily",
        active: bool = True,
        **properties: str,
    ) -> str:
        """Create an image with the properties of a daily backup; record it for ``installation``."""
        headers = {**caller, **SERVICE_TOKEN}
        if installation:
            headers |= {"X-Installation-UUID": installation, "X-Instance-ID": INSTANCE}
            headers |= {"X-Relation-Kind": "backup", "X-Relation-Label": label}
        body = {"instance_uuid": INSTANCE, "image_type": "backup", "backup_type": "daily"}
        body |= {"disk_format": "raw", "container_format": "bare", **properties}
        made = call(self.app, "POST", "/v2/images", headers, body)
        assert made.status == 201, made.body
        image_id: str = made.json["id"]
        if active:
            data = call(self.app, "PUT", f"/v2/images/{image_id}/file", headers, b"data")
            assert data.status == 204, data.body
        return image_id

    def rotate(self, caller: dict[str, str] = BY_NOVA, /, **changes: str) -> Any:
        """Send the query of Nova's rotation; return the response."""
        query = {
            "image_type": "backup",
            "backup_type": "daily",
            "instance_uuid": INSTANCE,
            "limit": "200",
            "sort_key": "created_at",
            "sort_dir": "desc",
        }
        answer = call(self.app, "GET", f"/v2/images?{urlencode(query | changes)}", caller)
        assert answer.status == 200, answer.body
        return answer

    def sees(self, caller: dict[str, str] = BY_NOVA, /, **changes: str) -> list[str]:
        return [image["id"] for image in self.rotate(caller, **changes).json["images"]]


@pytest.fixture
def cloud(glance_app: "WSGIApplication", sqlite_url: str) -> Cloud:
    schema.upgrade(make_url(sqlite_url))
    return Cloud(glance_app, sqlite_url)


@pytest.fixture(autouse=True)
def _no_images_left(glance_app: "WSGIApplication") -> Any:
    yield
    path = f"/v2/images?limit=1000&instance_uuid={INSTANCE}"
    for image in call(glance_app, "GET", path, ADMIN).json["images"]:
        assert call(glance_app, "DELETE", f"/v2/images/{image['id']}", ADMIN).status == 204


def test_inherited_failed_and_other_labels_are_not_listed(cloud: Cloud) -> None:
    mine = [cloud.backup() for _ in range(3)]
    cloud.backup(installation=None)
    cloud.backup(active=False)
    cloud.backup(label="weekly")
    answer = cloud.rotate()
    assert [image["id"] for image in answer.json["images"]] == mine[::-1]
    assert answer.headers["X-Relation-Filters-Applied"] == ACKNOWLEDGED


def test_deleted_backups_and_other_labels_do_not_count_for_the_limit(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_backups, "BACKUPS_LIMIT", 2)
    mine = [cloud.backup() for _ in range(2)]
    gone = [cloud.backup() for _ in range(2)]
    cloud.backup(label="weekly")
    for image_id in gone:
        assert call(cloud.app, "DELETE", f"/v2/images/{image_id}", USER).status == 204
    assert cloud.sees() == mine[::-1]


def test_pages_repeat_the_callers_query(cloud: Cloud) -> None:
    mine = [cloud.backup() for _ in range(3)]
    cloud.backup(installation=None)
    page = cloud.rotate(limit="2").json
    assert [image["id"] for image in page["images"]] == mine[:0:-1]
    assert "status" not in page["next"]
    rest = call(cloud.app, "GET", page["next"], BY_NOVA)
    assert [image["id"] for image in rest.json["images"]] == mine[:1]
    assert rest.headers["X-Relation-Filters-Applied"] == ACKNOWLEDGED


@pytest.mark.parametrize(
    "changes", [{"image_type": "snapshot"}, {"status": "active"}, {"instance_uuid": "no id"}]
)
def test_other_queries_pass_unchanged(cloud: Cloud, changes: dict[str, str]) -> None:
    cloud.backup()
    assert "X-Relation-Filters-Applied" not in cloud.rotate(**changes).headers


def test_environ_without_query_string_is_accepted(cloud: Cloud) -> None:
    environ = environ_of("GET", "/v2/images", BY_NOVA)
    del environ["QUERY_STRING"]
    assert run(cloud.app, environ).status == 200


def test_forged_backups_do_not_displace_recorded_ones_without_a_service_token(
    cloud: Cloud,
) -> None:
    true = [cloud.backup() for _ in range(2)]
    for _ in range(2):
        cloud.backup(installation=None)
    answer = cloud.rotate(USER)
    assert [image["id"] for image in answer.json["images"]] == true[::-1]
    assert answer.headers["X-Relation-Filters-Applied"] == ACKNOWLEDGED


def test_unrecorded_server_has_no_backups_without_a_service_token(
    cloud: Cloud,
) -> None:
    cloud.backup(installation=None)
    answer = cloud.rotate(USER)
    assert answer.json["images"] == []
    assert answer.headers["X-Relation-Filters-Applied"] == ACKNOWLEDGED


def test_project_gets_only_its_own_backups_without_a_service_token(cloud: Cloud) -> None:
    public = cloud.backup(caller=ADMIN, visibility="public")
    mine = cloud.backup()
    assert cloud.sees(USER) == [mine]
    assert cloud.sees(identity("eve", "nowhere")) == []
    assert cloud.sees(BY_NOVA) == cloud.sees(ADMIN) == [mine, public]


def test_binding_of_a_user_does_not_count_without_a_service_token(cloud: Cloud) -> None:
    installations.register(cloud.database, OTHER_NOVA, "two", [ServiceUser("alice")])
    mine = cloud.backup()
    assert cloud.sees(USER) == [mine]


@pytest.mark.parametrize("caller", [BY_NOVA, USER], ids=["service token", "no service token"])
def test_server_id_of_two_installations_has_no_backups_and_a_log_line(
    cloud: Cloud, caplog: pytest.LogCaptureFixture, caller: dict[str, str]
) -> None:
    cloud.backup(NOVA)
    cloud.backup(OTHER_NOVA)
    answer = cloud.rotate(caller)
    assert answer.json["images"] == []
    assert answer.headers["X-Relation-Filters-Applied"] == ACKNOWLEDGED
    (record,) = [
        row for row in caplog.records if row.name == "related_images.middleware.nova_rotation"
    ]
    assert record.levelname == "WARNING"
    assert all(
        word in record.getMessage()
        for word in (INSTANCE, NOVA, OTHER_NOVA, "bind the service user of each Nova")
    )


def test_list_is_not_restricted_without_the_option(
    glance_app: "WSGIApplication", cloud: Cloud, sqlite_url: str
) -> None:
    unrecorded = cloud.backup(installation=None)
    recorded = cloud.backup()
    passing = Cloud(glance_app, sqlite_url, nova_rotation="pass")
    assert passing.sees() == [recorded, unrecorded]


def test_binding_distinguishes_two_installations_with_the_same_server_id(
    cloud: Cloud,
) -> None:
    ours = cloud.backup(NOVA)
    cloud.backup(OTHER_NOVA)
    assert cloud.sees() == []
    installations.register(cloud.database, NOVA, "one", [ServiceUser("nova")])
    assert cloud.sees() == [ours]
    assert cloud.sees({**BY_NOVA, "X-Service-User-Id": "nova-2"}) == []


def test_bound_service_user_gets_an_empty_list_for_a_server_without_backups(
    cloud: Cloud,
) -> None:
    installations.register(cloud.database, NOVA, "one", [ServiceUser("nova")])
    cloud.backup(installation=None)
    assert cloud.sees() == []


def test_service_user_bound_to_two_installations(cloud: Cloud) -> None:
    installations.register(cloud.database, NOVA, "one", [ServiceUser("nova")])
    installations.register(cloud.database, OTHER_NOVA, "two", [ServiceUser("nova")])
    cloud.backup(installation=None)
    assert cloud.sees() == []
    ours = cloud.backup(NOVA)
    assert cloud.sees() == [ours]


@pytest.mark.parametrize(
    ("types", "is_bound"), [(("server", "volume"), True), (("volume",), False), (None, True)]
)
def test_service_user_that_is_not_the_first_is_found_for_servers_alone(
    cloud: Cloud, types: tuple[str, ...] | None, is_bound: bool
) -> None:
    ours = cloud.backup(NOVA)
    cloud.backup(OTHER_NOVA)
    users = [ServiceUser("glance"), ServiceUser("nova", types)]
    installations.register(cloud.database, NOVA, "one", users)
    assert cloud.sees() == ([ours] if is_bound else [])


def test_list_is_empty_while_the_database_is_down(
    glance_app: "WSGIApplication", cloud: Cloud, tmp_path: Path
) -> None:
    cloud.backup()
    down = Cloud(glance_app, f"sqlite:///{tmp_path}/missing/nowhere.db")
    assert down.sees() == []
