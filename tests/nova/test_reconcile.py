"""``related-images reconcile --resources`` with a real Nova."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from related_images.db import schema
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

PATIENCE = 400

Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    directory = tmp_path_factory.mktemp("nova")
    plan, results = directory / "plan.json", directory / "outcome.json"
    database = f"sqlite:///{directory}/recorded.db"
    schema.upgrade(database)
    with ServedGlance(directory / "glance") as glance:
        plan.write_text(json.dumps({"filtered": glance.url, "database": database}))
        lab = subprocess.run(
            [sys.executable, "-m", "tests.nova.reconcile_lab", str(plan), str(results)],
            env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert lab.returncode == 0, lab.stderr[-5000:]
        yield json.loads(results.read_text())


LIVE = {"kept", "soft-deleted", "waiting", "rebuilt"}
RECORDED = LIVE | {"gone", "failed"}


def named(outcome: Outcome, run: str) -> set[str]:
    """Return the names of the servers that are live after a run."""
    names = {id: name for name, id in outcome["servers"].items()}
    return {names[id] for id in outcome["runs"][run]["live"]}


def counts(outcome: Outcome, run: str) -> dict[str, int]:
    found: dict[str, int] = outcome["runs"][run]["counts"]
    return {name: found[name] for name in ("listed", "ended", "started", "doubtful")}


def test_ends_and_starts_are_recorded(outcome: Outcome) -> None:
    assert outcome["runs"]["done"]["code"] == 0
    expected = {"listed": 7, "ended": 2, "started": 3, "doubtful": 0}
    assert counts(outcome, "done") == expected
    assert named(outcome, "done") == LIVE | {"missed", "waiting too"}


def test_a_missed_start_and_a_missed_rebuild_are_recorded(outcome: Outcome) -> None:
    servers, base = outcome["servers"], outcome["base"]
    starts = [tuple(row) for row in outcome["runs"]["done"]["starts"]]
    by_name = {name: [row[1:] for row in starts if row[0] == servers[name]] for name in servers}
    assert by_name["missed"] == by_name["waiting too"] == [(base, "backfill")]
    assert by_name["rebuilt"] == [(base, "notification"), (outcome["other"], "backfill")]
    assert by_name["kept"] == [(base, "notification")]
    assert by_name["volumes"] == []


def test_a_second_run_changes_nothing(outcome: Outcome) -> None:
    expected = {"listed": 7, "ended": 0, "started": 0, "doubtful": 0}
    assert counts(outcome, "again") == expected
    assert outcome["runs"]["again"]["starts"] == outcome["runs"]["done"]["starts"]


def test_a_dry_run_changes_nothing(outcome: Outcome) -> None:
    assert counts(outcome, "dry run") == counts(outcome, "done")
    assert named(outcome, "dry run") == RECORDED


def test_while_a_cell_is_down_no_server_is_ended(outcome: Outcome) -> None:
    """Nova lists only servers of other cells. It says of a soft-deleted one that it is gone."""
    run = outcome["runs"]["cell down"]
    assert run["code"] == 3
    assert "a cell of Nova is down, with the host 'compute'" in run["error"]
    assert run["counts"]["doubtful"] >= len({"kept", "soft-deleted", "rebuilt", "missed"})
    assert not run["counts"]["complete"]
    assert named(outcome, "cell down") == named(outcome, "again")


def test_a_user_who_does_not_see_all_servers_is_refused(outcome: Outcome) -> None:
    run = outcome["runs"]["user"]
    assert run["code"] == 1
    assert "use an account with the admin role" in run["error"]


def test_a_server_that_is_purged_between_two_pages_does_not_end_the_list(outcome: Outcome) -> None:
    listed, purged = outcome["purged marker"]["listed"], outcome["purged marker"]["purged"]
    there = set(outcome["servers"]) - {"gone", "soft-deleted"}
    assert purged in listed
    assert set(listed) == {outcome["servers"][name] for name in there}
