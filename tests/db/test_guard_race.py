"""A concurrent deletion and start or renewal: only one of them succeeds, in each database."""

import os

import pytest

from tests.db.guard_rounds import play_rounds

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("RELATED_IMAGES_GUARD_ROUNDS", "300"))


@pytest.mark.parametrize("kind", ["boot", "use"])
def test_a_deletion_and_a_use_never_both_succeed(url: str, kind: str) -> None:
    outcomes = play_rounds(url, ROUNDS, kind)
    assert sum(outcomes.values()) == ROUNDS
    assert set(outcomes) <= {
        ("deleted", "image.being-deleted"),
        ("deleted", "image.gone"),
        ("image.in-use", "used"),
    }
