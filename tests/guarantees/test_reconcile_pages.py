"""A Glance with short pages: ``reconcile`` follows each ``next``, but not endlessly."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.client.scripted import Asked, Reply, Scripted, serving, shown
from tests.guarantees.reconciling import NOW, TASKS, Reconciler, new_id
from tests.guarantees.test_reconcile import created, database_of
from tests.servers import ServedGlance

SHORT = "[DEFAULT]\napi_limit_max = 3\nlimit_param_default = 2"


@pytest.fixture
def short(tmp_path: Path) -> Iterator[ServedGlance]:
    """The real Glance with at most three images per page."""
    with ServedGlance(tmp_path / "short", glance_conf=SHORT) as running:
        yield running


def test_every_page_of_the_real_glance_is_read(
    short: ServedGlance, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [created(short, os_hidden=number % 4 == 0) for number in range(9)]
    with closing(sqlite3.connect(database_of(short).removeprefix("sqlite:///"))) as database:
        database.execute("UPDATE related_image SET deleted_at = 1")
        database.commit()
    reconciler = Reconciler(database_of(short), short.url, capsys)
    assert all(reconciler.is_marked(image_id) for image_id in ids)
    counts = reconciler.run(*NOW)
    assert (counts["checked"], counts["present"], counts["restored"]) == (9, 9, 9)
    assert not any(reconciler.is_marked(image_id) for image_id in ids)


def _listing(ids: list[str], following: str | None) -> Reply:
    images = [{"id": id, "created_at": "2020-01-01T00:00:00Z", "owner": "demo"} for id in ids]
    return shown({"images": images} | ({"next": following} if following else {}))


def test_a_next_link_with_another_host_is_followed_on_the_same_endpoint(
    reconciler: Reconciler, scripted: Scripted
) -> None:
    ids = sorted(new_id() for _ in range(2))
    reconciler.announce(*ids)
    with serving() as elsewhere:

        def answer(asked: Asked) -> Reply:
            if asked.path != "/v2/images":
                return TASKS
            if "marker" in asked.query:
                return _listing(ids[1:], None)
            return _listing(ids[:1], f"{elsewhere.url}/v2/images?{asked.query}&marker={ids[0]}")

        scripted.script = answer
        assert reconciler.run(*NOW)["present"] == 2
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    ("ahead", "said"),
    [(0, "refers to a previous page"), (1, "there are more pages than the 2 requested images")],
    ids=["the same page again", "another page each time"],
)
def test_an_endless_chain_of_next_links_ends_the_run_without_changes(
    reconciler: Reconciler, scripted: Scripted, ahead: int, said: str
) -> None:
    ids = [new_id() for _ in range(2)]
    reconciler.announce(*ids)

    def answer(asked: Asked) -> Reply:
        if asked.path != "/v2/images":
            return TASKS
        number = int(parse_qs(asked.query).get("marker", ["0"])[0]) + ahead
        return _listing([], f"/v2/images?marker={number}")

    scripted.script = answer
    assert said in reconciler.refusal(*NOW)
    assert len(scripted.of("GET", "/v2/images")) < 5
    assert not any(reconciler.is_marked(image_id) for image_id in ids)
