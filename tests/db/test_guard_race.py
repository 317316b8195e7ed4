"""A deletion and a start at the same moment: one of both, in each database."""

import os

import pytest

from tests.db.guard_rounds import played

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("RELATED_IMAGES_GUARD_ROUNDS", "300"))


def test_an_image_is_never_both_deleted_and_started_from(url: str) -> None:
    outcomes = played(url, ROUNDS)
    assert sum(outcomes.values()) == ROUNDS
    assert set(outcomes) <= {
        ("deleted", "image.being-deleted"),
        ("deleted", "image.gone"),
        ("image.in-use", "started"),
    }
