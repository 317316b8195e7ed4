import json
from datetime import UTC, datetime
from typing import Any

import pytest

from related_images.db import ListedImage
from related_images.errors import ParameterMalformed
from related_images.middleware import image_list
from related_images.middleware.environ import parameters
from tests import wsgi

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
IMAGES = [ListedImage(id, NOON, NOON) for id in ("b", "a")]


def listed(query: str, page: Any, status: str = "200 OK") -> tuple[str, dict[str, str], Any]:
    """Return the query that Glance got, and the headers and the body of the response."""
    asked, started = [], []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["QUERY_STRING"])
        content = page if isinstance(page, bytes) else json.dumps(page).encode()
        start_response(status, [("content-length", str(len(content))), ("X-Kept", "yes")])
        return [content]

    environ = wsgi.environ_of("GET", "/v2/images", {"Accept-Encoding": "gzip"})
    body = b"".join(
        image_list.answer_restricted(
            app,
            environ,
            lambda status, headers: started.append(dict(headers)),
            parameters(query),
            "installation_uuid, instance_id, kind",
            image_list.Selection.of_images(IMAGES),
        )
    )
    assert int({name.lower(): text for name, text in started[0].items()}["content-length"]) == len(
        body
    )
    return asked[0], started[0], body


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", "id=in:a,b"),
        ("limit=1&name=x%20y", "limit=1&name=x%20y&id=in:a,b"),
        (f"installation_uuid={UUID}&limit=1&instance_id=i", "limit=1&id=in:a,b"),
        (f"%69nstallation_uuid={UUID}&tag=a&tag=b", "tag=a&tag=b&id=in:a,b"),
        ("relation_kind=backup&relation_label=x&&", "id=in:a,b"),
        ("id=a", "id=in:a"),
        ("id=c", "id=in:"),
        ("id=in:a,c", "id=in:a"),
        ("id=in:%22a%22,%22b%22", "id=in:a,b"),
        ("id=eq:a", "id=in:a"),
        ("id=in:a:b", "id=in:"),
        ("id=in:a&id=in:b", "id=in:b"),
        ("id=neq:a&id=b", "id=in:b"),
        ("limit=1;id=a", "limit=1&id=in:a"),
    ],
)
def test_query_to_glance_is_the_callers_query_with_the_ids(query: str, asked: str) -> None:
    assert listed(query, {"images": []})[0] == asked


@pytest.mark.parametrize("condition", ["neq:a", "IN:a", "id:a", ":a"])
def test_unknown_operator_on_the_id_is_refused(condition: str) -> None:
    with pytest.raises(ParameterMalformed, match="give id=ID, id=eq:ID or id=in:ID,ID,…"):
        listed(f"id={condition}", {"images": []})


def test_links_repeat_the_callers_query() -> None:
    own = f"installation_uuid={UUID}&instance_id=i&name=x%20y&marker=m0"
    page = {
        "images": [{"id": "a"}],
        "first": "/v2/images?id=in:a",
        "next": "/v2/images?id=in:a&marker=m%261",
    }
    _, _, body = listed(own, page)
    kept = f"/v2/images?installation_uuid={UUID}&instance_id=i&name=x%20y"
    assert json.loads(body) == page | {"first": kept, "next": f"{kept}&marker=a"}


def test_links_are_ascii() -> None:
    page = {"images": [{"id": "a"}], "next": "/v2/images?id=in:a&marker=m"}
    raw = "name=облако&tag=a%20b".encode().decode("latin-1")
    asked, _, body = listed(raw, page)
    assert asked == f"{raw}&id=in:a,b"
    kept = "/v2/images?name=%D0%BE%D0%B1%D0%BB%D0%B0%D0%BA%D0%BE&tag=a%20b"
    assert json.loads(body) == page | {"first": kept, "next": f"{kept}&marker=a"}


def test_links_without_query_have_no_question_mark() -> None:
    page = {"images": [{"id": "a"}], "next": "/v2/images?id=in:a&marker=m"}
    body = json.loads(listed("", page)[2])
    assert (body["first"], body["next"]) == ("/v2/images", "/v2/images?marker=a")


def test_list_is_acknowledged_and_other_headers_are_kept() -> None:
    _, headers, _ = listed("", {"images": []})
    assert headers["X-Relation-Filters-Applied"] == "installation_uuid, instance_id, kind"
    assert headers["X-Kept"] == "yes"


def test_error_of_glance_passes_unchanged() -> None:
    _, headers, body = listed("limit=x", b"<html>no</html>", status="400 Bad Request")
    assert body == b"<html>no</html>"
    assert "X-Relation-Filters-Applied" not in headers


def test_non_ascii_text_is_not_escaped() -> None:
    _, _, body = listed("", {"images": [{"id": "a", "name": "облако"}]})
    assert "облако" in body.decode()
