"""Inconclusive responses of Glance: ``reconcile`` stops with an error and changes nothing."""

from datetime import timedelta

import pytest

from tests.client.scripted import Reply, Scripted, shown
from tests.guarantees.reconciling import NOW, FakeGlance, Reconciler, new_id

pytestmark = pytest.mark.slow

ERROR_PAGE = Reply(200, b"<html><h1>Maintenance</h1></html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"tasks": ERROR_PAGE}, "not the expected JSON"),
        ({"tasks": Reply(503)}, "503"),
        ({"tasks": Reply(401)}, "the admin role"),
        ({"listing": ERROR_PAGE}, "not the expected JSON"),
        ({"listing": Reply(502)}, "502"),
        ({"listing": shown({"images": None})}, "not the expected JSON"),
        (
            {"single": Reply(404, b"<html>no such backend</html>")},
            "a 404 does not come from Glance",
        ),
        ({"single": Reply(403)}, "403"),
        ({"single": ERROR_PAGE}, "not the expected JSON"),
    ],
)
def test_an_inconclusive_response_changes_nothing(
    reconciler: Reconciler, scripted: Scripted, others: dict[str, Reply], said: str
) -> None:
    there, missed = new_id(), new_id()
    reconciler.announce(there, missed)
    scripted.script = FakeGlance(there, **others)
    assert said in reconciler.refusal(*NOW)
    assert not reconciler.is_marked(there)
    assert not reconciler.is_marked(missed)


def test_an_unreachable_glance_changes_nothing(
    reconciler: Reconciler, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = new_id()
    reconciler.announce(missed)
    nowhere = Reconciler(reconciler.connection, "http://127.0.0.1:1", capsys)
    assert "check the endpoint" in nowhere.refusal(*NOW)
    assert not reconciler.is_marked(missed)


def test_an_empty_glance_is_trusted_only_with_the_option(
    reconciler: Reconciler, scripted: Scripted
) -> None:
    missed = new_id()
    reconciler.announce(missed)
    scripted.script = FakeGlance()
    assert "lists no images" in reconciler.refusal(*NOW)
    assert not reconciler.is_marked(missed)
    assert reconciler.run(*NOW, "--allow-empty-glance")["marked_deleted"] == 1
    assert reconciler.is_marked(missed)


def test_the_glance_of_another_cloud_is_not_trusted(
    reconciler: Reconciler, scripted: Scripted
) -> None:
    missed = [new_id() for _ in range(10)]
    reconciler.announce(*missed)
    scripted.script = FakeGlance(new_id())
    assert "has none of them" in reconciler.refusal(*NOW)
    assert not any(reconciler.is_marked(image_id) for image_id in missed)


def test_a_run_that_ended_with_an_error_is_continued(
    reconciler: Reconciler, scripted: Scripted
) -> None:
    ids = [new_id() for _ in range(250)]
    reconciler.announce(*ids, age=timedelta(minutes=1))
    sound = FakeGlance(*ids[:100], ids[-1])
    scripted.script = lambda asked: Reply(502) if asked.path.endswith(ids[120]) else sound(asked)
    assert "502" in reconciler.refusal(*NOW)
    assert not any(reconciler.is_marked(image_id) for image_id in ids)
    scripted.script = sound
    scripted.asked.clear()
    counts = reconciler.run(*NOW)
    assert (counts["checked"], counts["marked_deleted"]) == (250, 149)
    assert not any(ids[0] in asked.query for asked in scripted.asked if "limit=100" in asked.query)
