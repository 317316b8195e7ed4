"""The identity and the permissions of a caller, from the headers of keystonemiddleware."""

import pytest

from related_images import config
from related_images.errors import AdminOnly, NotIdentified, RecordingForbidden
from related_images.middleware import policy
from related_images.middleware.access import Caller
from related_images.middleware.policy import Policy
from tests import wsgi

SETTINGS = config.load("filter:related-images", {"connection": "sqlite://"})
POLICY = Policy(SETTINGS)


def caller(roles: str, **more: str) -> Caller:
    sent_headers = wsgi.identity("u", "p", roles) | more
    return Caller(wsgi.environ_of("GET", "/", sent_headers), SETTINGS, POLICY)


@pytest.mark.parametrize("roles", ["service", "SERVICE", " Service,,member , ", "member,service"])
def test_role_matches_in_any_case_and_position(roles: str) -> None:
    assert caller(roles).may_record


@pytest.mark.parametrize("roles", ["", ",", "services", "ser vice", "service;admin"])
def test_caller_without_recording_role_may_not_record(roles: str) -> None:
    stranger = caller(roles)
    assert (stranger.sees_all_projects, stranger.visible_to) == (False, "p")
    with pytest.raises(RecordingForbidden, match=r"in a service token: service$"):
        stranger.require(policy.CREATE_IMAGE)
    with pytest.raises(
        RecordingForbidden, match="or one of these admin roles, in the caller's own token: admin"
    ):
        stranger.require(policy.DELETE_RELATION)
    with pytest.raises(AdminOnly, match="admin"):
        stranger.require(policy.CREATE_INSTALLATION)


def test_unconfirmed_token_gives_no_rights() -> None:
    stranger = caller("admin,service", **{"X-Identity-Status": "Invalid"})
    assert [stranger.may_record, stranger.is_admin] == [False] * 2
    assert not stranger.permits(policy.DELETE_RELATION)
    with pytest.raises(NotIdentified):
        stranger.require_identity()


def with_service(roles: str, service_roles: str, **more: str) -> Caller:
    """Return a caller whose request has a user token and a service token."""
    service = {
        "X-Service-Identity-Status": "Confirmed",
        "X-Service-User-Id": "nova",
        "X-Service-Roles": service_roles,
    }
    return caller(roles, **service | more)


def test_service_token_may_record_and_sees_all_projects() -> None:
    user = with_service("member", "service")
    assert [user.has_recording_role, user.has_service_token] == [False, True]
    assert [user.may_record, user.is_admin] == [True, False]
    assert user.visible_to is None
    user.require(policy.CREATE_IMAGE)
    user.require(policy.DELETE_RELATION)
    with pytest.raises(AdminOnly):
        user.require(policy.CREATE_INSTALLATION)


@pytest.mark.parametrize("roles", ["", "member", "admin", "services"])
def test_service_token_without_the_role_gives_no_rights(roles: str) -> None:
    user = with_service("member", roles)
    assert [user.has_service_token, user.may_record] == [False] * 2
    assert not user.permits(policy.DELETE_RELATION)
    assert user.visible_to == "p"


def test_unconfirmed_service_token_gives_no_rights() -> None:
    user = with_service("member", "service", **{"X-Service-Identity-Status": "Invalid"})
    assert [user.has_service_token, user.may_record] == [False] * 2


def test_service_token_is_enough_if_the_user_token_is_not_confirmed() -> None:
    user = with_service("admin,service", "service", **{"X-Identity-Status": "Invalid"})
    assert [user.may_record, user.is_admin, user.has_recording_role] == [True, False, False]
    assert user.project_id is None


def test_admin_sees_all_projects_and_removes_but_does_not_record() -> None:
    admin = caller("admin")
    assert [admin.is_admin, admin.may_record] == [True, False]
    assert admin.visible_to is None
    admin.require(policy.CREATE_INSTALLATION)
    admin.require(policy.DELETE_RELATION)
    with pytest.raises(RecordingForbidden):
        admin.require(policy.CREATE_IMAGE)


@pytest.mark.parametrize(
    "more", [{"X-Project-Id": ""}, {"X-Identity-Status": "Invalid"}, {"X-Identity-Status": ""}]
)
def test_caller_without_project_sees_no_relations(more: dict[str, str]) -> None:
    assert caller("member", **more).visible_to == ""


@pytest.mark.parametrize(
    ("roles", "service_roles", "users"),
    [
        ("member", "service", {"nova"}),
        ("service", "member", {"u"}),
        ("service", "service", {"u", "nova"}),
        ("member", "member", set()),
        ("admin", "member", set()),
    ],
)
def test_only_users_with_the_role_are_checked_against_the_binding(
    roles: str, service_roles: str, users: set[str]
) -> None:
    found = with_service(roles, service_roles)
    assert found.reporter().user_ids == users
    assert not found.reporter().for_any_installation
    assert found.remover().user_ids == users
    assert found.remover().for_any_installation is (roles == "admin")


def test_service_token_without_user_id_has_no_service_user() -> None:
    assert (
        with_service("member", "service", **{"X-Service-User-Id": ""}).reporter().user_ids == set()
    )


@pytest.mark.parametrize("required", [True, False])
def test_required_registration_follows_the_option(required: bool) -> None:
    options = {"connection": "sqlite://", "require_registered_installation": str(required)}
    settings = config.load("filter:related-images", options)
    environ = wsgi.environ_of("GET", "/", wsgi.identity("u", "p", "service"))
    assert Caller(environ, settings, Policy(settings)).reporter().require_registered is required


def test_log_description_has_the_right_the_user_and_the_service() -> None:
    assert caller("admin").description == "administrator, user 'u' of project 'p'"
    by_service = with_service("member", "service").description
    assert by_service == "service, user 'u' of project 'p' through service user 'nova'"


def test_log_description_escapes_line_breaks() -> None:
    assert "\n" not in caller("admin", **{"X-User-Id": "u\nforged"}).description
