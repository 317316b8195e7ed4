"""Backup policies in the metadata of servers."""

import json
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from related_images.client import PolicyInvalid
from related_images.client.backups.stored_policy import (
    READERS,
    TEXT_LENGTH,
    Ages,
    StoredPolicy,
    read,
    write,
)
from related_images.client.retention import UNLIMITED, Policy


def test_a_written_policy_can_be_read() -> None:
    text = write(
        {
            "keep_last": "3",
            "keep_daily": 7,
            "keep_yearly": "unlimited",
            "keep_within": "1d12h",
            "keep_labels": ["monthly", "before.upgrade"],
            "timezone": "Europe/Berlin",
            "older_than": "26h",
            "critical": "2d",
        }
    )
    assert read(text) == StoredPolicy(
        Policy(
            last=3,
            daily=7,
            yearly=UNLIMITED,
            within=timedelta(hours=36),
            labels=frozenset({"monthly", "before.upgrade"}),
            timezone=ZoneInfo("Europe/Berlin"),
        ),
        Ages(timedelta(hours=26), timedelta(days=2)),
    )


def test_missing_rules_are_omitted() -> None:
    rules = dict.fromkeys(READERS) | {"keep_labels": [], "keep_last": 1}
    assert write(rules) == '{"keep_last":1}'
    assert read('{"keep_last": 1}') == StoredPolicy(Policy(last=1), None)
    assert read('{"older_than": "1d"}') == StoredPolicy(Policy(), Ages(timedelta(days=1), None))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "is empty; set at least one of keep_last, "),
    ({"timezone": "UTC"}, "is empty"),
    ({"keep_last": 0, "keep_daily": "0", "keep_within": "0h"}, "is empty"),
    ({"keep_last": -2}, "keep_last: '-2' is neither a whole number nor unlimited"),
    ({"keep_last": 1.5}, "keep_last: 1.5 is neither a number nor text"),
    ({"keep_last": True}, "keep_last: True is neither"),
    ({"keep_last": [1]}, "keep_last"),
    ({"keep_within": "999999w"}, "keep_within: '999999w' is longer than 7305 days"),
    ({"older_than": "99999d"}, "older_than: '99999d' is longer than 7305 days"),
    ({"keep_within": "7"}, "keep_within: '7' is not a span such as 26h"),
    ({"keep_labels": "daily"}, "keep_labels: 'daily' is not a list"),
    ({"keep_labels": ["every day"]}, "keep_labels: the relation label"),
    ({"keep_last": 1, "timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is not a time zone"),
    ({"keep_lasts": 1}, "'keep_lasts' is not a key of a policy"),
    ({"keep_last": 1, "critical": "3d"}, "critical needs an older_than"),
    ({"older_than": "3d", "critical": "2d"}, "critical needs an older_than"),
    ({"keep_labels": [f"label-{n}" for n in range(40)]}, f"Nova stores at most {TEXT_LENGTH}"),
]


@pytest.mark.parametrize(("rules", "complaint"), REFUSED)
def test_an_invalid_policy_is_not_written(rules: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PolicyInvalid) as refused:
        write(rules)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("text", [json.dumps(rules) for rules, _ in REFUSED[:-1]])
def test_an_invalid_policy_is_not_read(text: str) -> None:
    with pytest.raises(PolicyInvalid):
        read(text)


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(PolicyInvalid, match="twice"):
        read('{"keep_last": 7, "keep_last": 1}')


@given(st.text() | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(json.dumps))
def test_random_text_is_not_a_policy(text: str) -> None:
    with pytest.raises(PolicyInvalid):
        read(text)
