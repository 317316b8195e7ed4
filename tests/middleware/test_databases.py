"""Every database stores and compares the accepted values exactly."""

from urllib.parse import quote

import pytest

from related_images.db import schema
from tests import wsgi
from tests.filters import StubGlance, filtering, instance_headers, new_uuid

ADMIN = wsgi.identity("root", "admins", "admin", "service")
TEXTS = [
    "plain",
    "PLAIN",
    "pläin",
    "with  spaces",
    "облако 🌥",
    "'; DROP TABLE x --",
    "%_\\",
    "x" * 255,
]


@pytest.fixture
def stub_glance() -> StubGlance:
    return StubGlance()


def test_every_project_sees_its_own_relations(database_url: str, stub_glance: StubGlance) -> None:
    schema.upgrade(database_url)
    guarded = filtering(stub_glance, database_url, database_timeout="60")
    installation = new_uuid()
    for number, text in enumerate(TEXTS):
        sent_headers = ADMIN | instance_headers(
            installation, f"i-{number}", label="Daily" if number else "daily"
        )
        answer = wsgi.call(guarded, "POST", "/v2/images", sent_headers, {"owner": text})
        assert answer.status == 201
    for number, text in enumerate(TEXTS):
        path = f"/v2/relations?project_id={quote(text)}"
        (row,) = wsgi.call(guarded, "GET", path, ADMIN).json["relations"]
        assert (row["project_id"], row["instance_id"]) == (text, f"i-{number}")
    labelled = wsgi.call(guarded, "GET", "/v2/relations?label=daily", ADMIN).json["relations"]
    assert [row["instance_id"] for row in labelled] == ["i-0"]


def test_unstorable_text_is_refused_on_every_database(
    database_url: str, stub_glance: StubGlance
) -> None:
    schema.upgrade(database_url)
    guarded = filtering(stub_glance, database_url, database_timeout="60")
    sent_headers = ADMIN | instance_headers(new_uuid(), "i")
    for owner in ("a\0b", "\ud800", "x" * 256, "a\nb", "a ", " a"):
        answer = wsgi.call(guarded, "POST", "/v2/images", sent_headers, {"owner": owner})
        assert answer.status == 400
    for query in (
        "project_id=a%00b",
        "project_id=%ED%A0%80",
        "created_after=0001-01-01",
        "limit=1",
    ):
        assert wsgi.call(guarded, "GET", f"/v2/relations?{query}", ADMIN).status in (200, 400)
    assert wsgi.call(guarded, "GET", "/v2/info/relations", ADMIN).json["database"] == "up"
