"""Who the caller is and what the caller may do, by the headers that keystonemiddleware sets."""

import pytest

from related_images import config
from related_images.errors import AdminOnly, NotIdentified, RecordingForbidden
from related_images.middleware.access import Caller
from tests import wsgi

SETTINGS = config.load("filter:related-images", {"connection": "sqlite://"})


def caller(roles: str, **more: str) -> Caller:
    said = wsgi.identity("u", "p", roles) | more
    return Caller(wsgi.environ_of("GET", "/", said), SETTINGS)


@pytest.mark.parametrize("roles", ["service", "SERVICE", " Service,,member , ", "member,service"])
def test_a_role_counts_in_any_case_and_place(roles: str) -> None:
    assert caller(roles).may_record


@pytest.mark.parametrize("roles", ["", ",", "services", "ser vice", "service;admin"])
def test_what_is_no_role_of_a_service_does_not_record(roles: str) -> None:
    stranger = caller(roles)
    assert (stranger.sees_all, stranger.visible_to) == (False, "p")
    with pytest.raises(RecordingForbidden, match=r"in a service token: service$"):
        stranger.must_record()
    with pytest.raises(RecordingForbidden, match="or an administrator's: admin"):
        stranger.must_remove()
    with pytest.raises(AdminOnly, match="admin"):
        stranger.must_administrate()


def test_a_token_that_is_not_confirmed_gives_no_right() -> None:
    stranger = caller("admin,service", **{"X-Identity-Status": "Invalid"})
    assert [stranger.may_record, stranger.may_remove, stranger.is_admin] == [False] * 3
    with pytest.raises(NotIdentified):
        stranger.must_be_identified()
