"""Retention rules: examples with the expected result, and properties of all results."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from related_images.client import InstanceRef
from related_images.client.backups.retention import (
    ACTIVE,
    FOREIGN,
    FUTURE,
    GONE,
    LAST_RESORT,
    NO_RULE,
    OF_ANOTHER,
    OTHERS,
    UNLIMITED,
    UNMATCHED,
    USE_UNKNOWN,
    Backup,
    Decision,
    Policy,
    plan,
)
from related_images.client.errors import PolicyEmpty
from related_images.errors import ParameterMalformed

VM = InstanceRef("0f8fad5b-d9cb-469f-a165-70867728950e", "vm-1")
OTHER = InstanceRef("0f8fad5b-d9cb-469f-a165-70867728950e", "vm-2")
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)  # a Saturday, in ISO week 47
BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def time(text: str) -> datetime:
    """Return the time for ``21`` or ``21T09:30`` in November 2026, or for a full date."""
    day, _, clock = text.partition("T")
    whole = day if "-" in day else f"2026-11-{day}"
    return datetime.fromisoformat(f"{whole}T{clock or '00:00'}").replace(tzinfo=UTC)


def backup(text: str, **facts: Any) -> Backup:
    return Backup(text, VM, facts.pop("label", "daily"), time(text), **facts)


def kept(decisions: list[Decision]) -> list[str]:
    return [decision.backup.image_id for decision in decisions if decision.keep]


WEEK = "21 20 19 18 17 16 15"
"""Saturday, back to the Sunday before, which is in ISO week 46."""

CASES = [
    # the last n
    ({"last": 1}, WEEK, "21"),
    ({"last": 3}, WEEK, "21 20 19"),
    ({"last": 7}, WEEK, WEEK),
    ({"last": 8}, WEEK, WEEK),
    ({"last": UNLIMITED}, WEEK, WEEK),
    ({"last": 2}, "21", "21"),
    ({"last": 2}, "21T09:00 21T08:59 21T08:58", "21T09:00 21T08:59"),
    # hours: the newest of each, and the oldest if the number is not reached
    ({"hourly": 1}, "21T09:59 21T09:30 21T09:00", "21T09:59"),
    ({"hourly": 2}, "21T09:59 21T09:30 21T09:00", "21T09:59 21T09:00"),
    ({"hourly": 2}, "21T09:00 21T08:59 21T08:00", "21T09:00 21T08:59"),
    ({"hourly": 3}, "21T09:00 21T08:59 21T08:00", "21T09:00 21T08:59 21T08:00"),
    ({"hourly": 2}, "21T09:30 20T09:30 19T09:30", "21T09:30 20T09:30"),
    ({"hourly": UNLIMITED}, "21T09:30 21T09:10 20T09:30 20T09:00", "21T09:30 20T09:30 20T09:00"),
    # days
    ({"daily": 1}, WEEK, "21"),
    ({"daily": 3}, WEEK, "21 20 19"),
    ({"daily": 3}, "21T10:00 21T09:00 20T10:00 20T09:00 19", "21T10:00 20T10:00 19"),
    ({"daily": 2}, "21T10:00 21T09:00 20T10:00 20T09:00 19", "21T10:00 20T10:00"),
    ({"daily": 4}, "21T10:00 21T09:00 20T10:00 20T09:00", "21T10:00 20T10:00 20T09:00"),
    ({"daily": 2}, "21 18 15 12", "21 18"),
    ({"daily": 1}, "21T00:00 20T23:59", "21T00:00"),
    ({"daily": UNLIMITED}, "21 20T10:00 20T09:00 19", "21 20T10:00 19"),
    ({"daily": UNLIMITED}, "21 20T10:00 20T09:00", "21 20T10:00 20T09:00"),
    ({"daily": 5}, "21T10:00 21T09:00 21T08:00", "21T10:00 21T08:00"),
    ({"daily": 7}, WEEK, WEEK),
    # weeks begin on Monday, and belong to the year of their Thursday
    ({"weekly": 1}, WEEK, "21"),
    ({"weekly": 2}, WEEK, "21 15"),
    ({"weekly": 2}, "21 16 15 09 08", "21 15"),
    ({"weekly": 3}, "21 16 15 09 08", "21 15 08"),
    ({"weekly": 4}, "21 16 15 09 08 02", "21 15 08 02"),
    ({"weekly": 5}, "21 16 15 09 08 03 02", "21 15 08 02"),
    ({"weekly": 2}, "2026-01-04 2026-01-01 2025-12-29 2025-12-28", "2026-01-04 2025-12-28"),
    ({"weekly": 1}, "2026-01-04 2025-12-29", "2026-01-04"),
    ({"weekly": 2}, "2026-01-04 2025-12-31 2025-12-29", "2026-01-04 2025-12-29"),
    # months
    ({"monthly": 1}, "21 01 2026-10-31", "21"),
    ({"monthly": 2}, "21 01 2026-10-31 2026-10-01", "21 2026-10-31"),
    ({"monthly": 3}, "21 01 2026-10-31 2026-10-01", "21 2026-10-31 2026-10-01"),
    ({"monthly": 2}, "21 2025-11-21 2024-11-21", "21 2025-11-21"),
    ({"monthly": 12}, "21 20", "21 20"),
    ({"monthly": 12}, "21 20 19", "21 19"),
    # years
    ({"yearly": 1}, "2026-01-01 2025-12-31", "2026-01-01"),
    ({"yearly": 2}, "2026-01-01 2025-12-31 2025-01-01", "2026-01-01 2025-12-31"),
    ({"yearly": 3}, "2026-01-01 2025-12-31 2025-01-01", "2026-01-01 2025-12-31 2025-01-01"),
    ({"yearly": 10}, "21 20 2025-05-05 2020-02-29", "21 2025-05-05 2020-02-29"),
    # within a time before the newest backup, not before now
    ({"within": DAY}, "21 20 19", "21"),
    ({"within": DAY}, "21 20T00:01 20 19", "21 20T00:01"),
    ({"within": 2 * DAY}, "21 20 19", "21 20"),
    ({"within": DAY}, "01 2026-10-31T12:00 2026-10-30", "01 2026-10-31T12:00"),
    ({"within": 7 * DAY}, WEEK + " 14 13", WEEK),
    ({"within": HOUR}, "21T09:30 21T09:00 21T08:30", "21T09:30 21T09:00"),
    # labels; one that no backup has may be misspelled, so all backups stay
    ({"labels": frozenset({"daily"})}, WEEK, WEEK),
    ({"labels": frozenset({"daily", "x"})}, WEEK, WEEK),
    ({"labels": frozenset({"Daily"})}, WEEK, WEEK),
    ({"labels": frozenset({"x"})}, WEEK, WEEK),
    ({"last": 1, "labels": frozenset({"x"})}, WEEK, WEEK),
    # rules are ORed
    ({"last": 1, "weekly": 2}, WEEK, "21 15"),
    ({"last": 2, "daily": 1}, "21T10:00 21T09:00 20", "21T10:00 21T09:00"),
    ({"daily": 2, "monthly": 2}, "21 20 19 2026-10-31 2026-10-30", "21 20 2026-10-31"),
    ({"daily": 2, "weekly": 2}, WEEK + " 14 13", "21 20 15"),
    ({"daily": 3, "weekly": 3, "monthly": 2}, "21 20 19 18 15 08 02 2026-10-25 2026-10-18",
     "21 20 19 15 08 2026-10-25"),
    ({"within": 2 * DAY, "yearly": 2}, "21 20 19 2025-01-01 2024-01-01", "21 20 2025-01-01"),
    ({"last": 1, "labels": frozenset({"daily"})}, "21 20", "21 20"),
    # one day in a time zone is two days in another
    ({"daily": 2}, "21T00:30 20T23:30 20T12:00", "21T00:30 20T23:30"),
    ({"daily": 2, "timezone": BERLIN}, "21T00:30 20T23:30 20T12:00", "21T00:30 20T12:00"),
    ({"daily": 1, "timezone": BERLIN}, "21T00:30 20T23:00 20T22:59", "21T00:30"),
    ({"daily": 2, "timezone": BERLIN}, "21T00:30 20T23:00 20T22:59", "21T00:30 20T22:59"),
    ({"yearly": 2, "timezone": BERLIN}, "2026-01-01 2025-12-31T23:00 2025-12-31T22:00 2025-01-01",
     "2026-01-01 2025-12-31T22:00"),
    ({"hourly": 3, "timezone": BERLIN},
     "2026-10-25T02:30 2026-10-25T01:30 2026-10-25T00:30 2026-10-24T23:30",
     "2026-10-25T02:30 2026-10-25T01:30 2026-10-25T00:30"),
    ({"hourly": 2, "timezone": BERLIN},
     "2026-10-25T01:45 2026-10-25T01:15 2026-10-25T00:45 2026-10-25T00:15",
     "2026-10-25T01:45 2026-10-25T00:45"),
    ({"weekly": 1, "timezone": BERLIN}, "16T00:00 15T23:30 15T22:30", "16T00:00"),
    ({"weekly": 2, "timezone": BERLIN}, "16T00:00 15T23:30 15T22:30", "16T00:00 15T22:30"),
    # a time in the future is ignored
    ({"last": 1}, "22 21 20", "22 21"),
    ({"daily": 2}, "25 24 21 20 19", "25 24 21 20"),
    ({"within": DAY}, "22 21 20T12:00 20", "22 21 20T12:00"),
    ({"last": 1}, "21T12:00 21T11:00", "21T12:00"),
    ({"last": 1}, "21T12:01 21T11:00", "21T12:01 21T11:00"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "given", "wanted"), CASES)
def test_a_policy_keeps_the_expected_backups(
    rules: dict[str, Any], given: str, wanted: str
) -> None:
    backups = [backup(text) for text in reversed(given.split())]
    assert kept(plan(backups, Policy(**rules), NOW)) == wanted.split()


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"protected": True}, "protected"),
        ({"in_use": True}, "in use"),
        ({"used_by_others": True}, OTHERS),
        ({"in_use": True, "used_by_others": True}, "in use"),
        ({"used_by_others": None}, USE_UNKNOWN),
        ({"of_another": True}, OF_ANOTHER),
        ({"hidden": True}, "hidden"),
        ({"status": "deactivated"}, "deactivated"),
        ({"status": "queued"}, "not finished: queued"),
        ({"status": "saving"}, "not finished: saving"),
        ({"status": "importing"}, "not finished: importing"),
        ({"status": "killed"}, "not finished: killed"),
        ({"orphan": True}, GONE),
    ],
)
@pytest.mark.parametrize("place", ["21", "19", "17"])
def test_exempt_backups_stay_and_do_not_count(
    facts: dict[str, Any], reason: str, place: str
) -> None:
    backups = [backup(text) for text in ("20", "18", "16")] + [backup(place, **facts)]
    decisions = plan(backups, Policy(last=2), NOW)
    by_id = {decision.backup.image_id: decision for decision in decisions}
    assert by_id[place] == Decision(backups[-1], True, (reason,))
    assert [by_id[text].keep for text in ("20", "18", "16")] == [True, True, False]


def test_all_reasons_are_reported() -> None:
    policy = Policy(last=1, daily=1, within=2 * DAY, labels=frozenset({"x"}))
    given = [backup("21"), backup("20"), backup("01"), backup("02", label="x")]
    newest, middle, oldest, _ = plan(given, policy, NOW)
    assert newest.reasons == ("last", "daily", "within 2d")
    assert middle.reasons == ("within 2d",)
    assert (oldest.keep, oldest.reasons) == (False, (NO_RULE,))


def test_the_oldest_backup_has_its_own_reason() -> None:
    *_, oldest = plan([backup("21T10:00"), backup("21T09:00")], Policy(daily=2), NOW)
    assert oldest.reasons == ("oldest daily",)


def test_all_exemptions_are_reported() -> None:
    (only,) = plan([backup("22", protected=True, in_use=True)], Policy(last=1), NOW)
    assert only.reasons == ("protected", "in use", FUTURE)


def test_one_backup_of_each_group_stays() -> None:
    given = [backup("20"), backup("19"), backup("18", label="x")]
    decisions = plan(given, Policy(labels=frozenset({"x"})), NOW)
    assert [it.reasons for it in decisions] == [(LAST_RESORT,), (NO_RULE,), ("label x",)]


def test_a_label_of_no_backup_keeps_all_backups() -> None:
    given = [backup("21"), backup("20"), backup("19", label="weekly"), backup("18", label="weekly")]
    policy = Policy(last=1, labels=frozenset({"dialy", "weekly", "a"}))
    why = tuple(UNMATCHED.format(label) for label in ("a", "dialy"))
    assert [(it.keep, it.reasons) for it in plan(given, policy, NOW)] == [
        (True, ("last",)),
        (True, why),
        (True, ("last", "label weekly")),
        (True, ("label weekly",)),
    ]


def test_a_label_is_needed_on_one_server_only() -> None:
    others = [replace(backup(text, label="weekly"), instance=OTHER) for text in ("19", "18")]
    policy = Policy(last=1, labels=frozenset({"weekly"}))
    assert kept(plan([backup("21"), backup("20"), *others], policy, NOW)) == ["21", "19", "18"]
    protected = backup("17", label="weekly", protected=True)
    assert kept(plan([backup("21"), backup("20"), protected], policy, NOW)) == ["21", "17"]


TWICE = [datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN), datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN)]
"""Two times in one hour; the second one is 40 minutes later, after the clocks were put back."""


@pytest.mark.parametrize("rule", [{"last": 1}, {"within": HOUR / 2}, {"hourly": 1}])
def test_the_second_occurrence_of_an_hour_is_newer(rule: dict[str, Any]) -> None:
    first, second = TWICE[0], TWICE[1].replace(fold=1)
    given = [
        replace(backup("21"), image_id=str(time.fold), created_at=time) for time in (first, second)
    ]
    assert kept(plan(given, Policy(**rule, timezone=BERLIN), NOW)) == ["1"]
    # 40 minutes are between them, not 20
    assert len(kept(plan(given, Policy(within=timedelta(minutes=41)), NOW))) == 2


def test_a_future_time_is_compared_in_utc() -> None:
    first, second = TWICE[0], TWICE[1].replace(fold=1)
    given = [replace(backup("21"), created_at=second)]
    (decision,) = plan(given, Policy(last=1), first)
    assert decision.reasons == (FUTURE,)
    (decision,) = plan([replace(given[0], created_at=first)], Policy(last=1), second)
    assert decision.reasons == ("last",)


@pytest.mark.parametrize("which", ["now", "created_at of the backup 21"])
def test_a_time_without_a_zone_is_refused(which: str) -> None:
    now, given = NOW, backup("21")
    if which == "now":
        now = now.replace(tzinfo=None)
    else:
        given = replace(given, created_at=given.created_at.replace(tzinfo=None))
    with pytest.raises(
        ParameterMalformed, match=f"{which} is 2026-11-21T.* and must have a time zone"
    ):
        plan([given], Policy(last=1), now)


def test_groups_are_independent() -> None:
    backups = [
        backup("21"),
        backup("20"),
        backup("19", label="weekly"),
        backup("18", label="weekly"),
        backup("17", label=None),
        replace(backup("16"), instance=OTHER),
    ]
    assert kept(plan(backups, Policy(last=1), NOW)) == ["21", "19", "17", "16"]


def test_a_policy_of_a_project_applies_to_its_own_backups() -> None:
    own = [backup(text, project_id="own") for text in ("21", "19")]
    others = [backup("20", project_id="theirs"), backup("18")]
    decided = plan(own + others, Policy(last=1, project_id="own"), NOW)
    assert kept(decided) == ["21", "20", "18"]
    assert [it.reasons for it in decided] == [("last",), (FOREIGN,), (NO_RULE,), (FOREIGN,)]


def test_orphans_are_pruned_on_request() -> None:
    backups = [backup(text, orphan=True) for text in ("21", "20", "19")]
    assert kept(plan(backups, Policy(last=1), NOW)) == ["21", "20", "19"]
    assert kept(plan(backups, Policy(last=1, orphans=True), NOW)) == ["21"]


@pytest.mark.parametrize("policy", [Policy(), Policy(orphans=True), Policy(within=timedelta(0))])
def test_an_empty_policy_is_refused(policy: Policy) -> None:
    with pytest.raises(PolicyEmpty, match="set at least one"):
        plan([backup("21")], policy, NOW)


def test_no_backups_give_no_decisions() -> None:
    assert plan([], Policy(last=1), NOW) == []


COUNTS = st.sampled_from([0] * 8 + [1, 2, 3, UNLIMITED])
POLICIES = st.builds(
    Policy,
    last=COUNTS,
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    within=st.sampled_from([None] * 4 + [HOUR, 30 * HOUR, 400 * HOUR]),
    labels=st.sampled_from([frozenset()] * 8 + [frozenset({"weekly"})]),
    timezone=st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kathmandu")]),
    orphans=st.booleans(),
).filter(lambda policy: not policy.is_empty)
SELDOM = st.sampled_from([False] * 11 + [True])
BACKUP = st.builds(
    Backup,
    image_id=st.uuids().map(str),
    instance=st.sampled_from([VM] * 3 + [OTHER]),
    label=st.sampled_from(["daily"] * 3 + ["weekly", None]),
    created_at=st.integers(-4, 2000).map(lambda hours: NOW - hours * HOUR / 2),
    status=st.sampled_from([ACTIVE] * 10 + ["queued", "deactivated"]),
    protected=SELDOM,
    hidden=SELDOM,
    in_use=SELDOM,
    orphan=SELDOM,
    of_another=SELDOM,
    used_by_others=st.sampled_from([False] * 24 + [True, None]),
    project_id=st.sampled_from(["own"] * 5 + ["theirs"]),
)
# without a minimum size, hypothesis creates few long lists
BACKUPS = st.integers(0, 25).flatmap(
    lambda least: st.lists(
        BACKUP, min_size=least, max_size=40, unique_by=lambda backup: backup.image_id
    )
)


@pytest.mark.slow
def test_random_backups_are_often_pruned() -> None:
    """The tests of properties need many examples in which a backup is deleted."""
    deleted = []

    @given(BACKUPS, POLICIES)
    @settings(deadline=None, derandomize=True, max_examples=200)
    def prune(backups: list[Backup], policy: Policy) -> None:
        deleted.append(len(backups) - len(survivors(backups, policy)))

    prune()
    assert sum(number > 0 for number in deleted) > len(deleted) / 4


def survivors(backups: list[Backup], policy: Policy) -> set[str]:
    return set(kept(plan(backups, policy, NOW)))


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_every_backup_has_one_decision(backups: list[Backup], policy: Policy) -> None:
    decided = [decision.backup.image_id for decision in plan(backups, policy, NOW)]
    assert sorted(decided) == sorted(backup.image_id for backup in backups)


@given(BACKUPS, POLICIES, st.data())
@settings(deadline=None)
def test_a_missing_backup_does_not_cause_a_deletion(
    backups: list[Backup], policy: Policy, data: Any
) -> None:
    """A list that is read in pages while images change may lack some of them."""
    missing = data.draw(st.sets(st.integers(0, 40)))
    read = [backup for number, backup in enumerate(backups) if number not in missing]
    deleted = {backup.image_id for backup in read} - survivors(read, policy)
    assert deleted <= {backup.image_id for backup in backups} - survivors(backups, policy)


@given(BACKUPS, POLICIES, st.randoms())
@settings(deadline=None)
def test_the_order_does_not_matter(backups: list[Backup], policy: Policy, chance: Any) -> None:
    shuffled = chance.sample(backups, len(backups))
    assert survivors(shuffled, policy) == survivors(backups, policy)


@given(BACKUPS, POLICIES, POLICIES)
@settings(deadline=None)
def test_rules_are_combined_with_or(backups: list[Backup], one: Policy, other: Policy) -> None:
    one, other = replace(one, timezone=UTC, orphans=False), replace(other, orphans=False)
    for rule in ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within"):
        alone = Policy(**{rule: getattr(one, rule)})
        if not alone.is_empty:
            both = replace(one, labels=other.labels)
            assert survivors(backups, alone) - last_resorts(backups, alone) <= survivors(
                backups, both
            )


def last_resorts(backups: list[Backup], policy: Policy) -> set[str]:
    decisions = plan(backups, policy, NOW)
    return {each.backup.image_id for each in decisions if each.reasons == (LAST_RESORT,)}


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_no_group_loses_its_last_active_backup(backups: list[Backup], policy: Policy) -> None:
    left = survivors(backups, policy)
    for group in {backup.group for backup in backups if backup.status == ACTIVE}:
        active = [b for b in backups if b.group == group and b.status == ACTIVE]
        assert any(backup.image_id in left for backup in active)


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_pruning_twice_changes_nothing(backups: list[Backup], policy: Policy) -> None:
    left = survivors(backups, policy)
    again = [backup for backup in backups if backup.image_id in left]
    assert survivors(again, policy) == left


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_another_server_changes_nothing(backups: list[Backup], policy: Policy) -> None:
    # without labels, because a label counts if a backup of any server has it
    policy = replace(policy, labels=frozenset(), last=policy.last or 1)
    own = [backup for backup in backups if backup.instance == VM]
    own_ids = {backup.image_id for backup in own}
    assert survivors(own, policy) == survivors(backups, policy) & own_ids


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_exempt_backups_are_never_deleted(backups: list[Backup], policy: Policy) -> None:
    for decision in plan(backups, policy, NOW):
        exempt = decision.backup
        if exempt.protected or exempt.hidden or exempt.in_use or exempt.status != ACTIVE:
            assert decision.keep
        assert decision.keep or not exempt.of_another
        assert decision.keep or exempt.used_by_others is False
        assert decision.keep or exempt.created_at <= NOW


@given(BACKUPS, POLICIES)
@settings(deadline=None)
def test_nothing_is_deleted_if_no_backup_has_a_label(backups: list[Backup], policy: Policy) -> None:
    policy = replace(policy, labels=policy.labels | {"dialy"})
    assert all(decision.keep for decision in plan(backups, policy, NOW))


CHANGES = {
    "Europe/Berlin": datetime(2026, 10, 25, 1, tzinfo=UTC),
    "America/New_York": datetime(2026, 11, 1, 6, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 15, tzinfo=UTC),  # by half an hour
    "Africa/Casablanca": datetime(2026, 3, 22, 2, tzinfo=UTC),
    "Europe/London": datetime(2026, 3, 29, 1, tzinfo=UTC),  # an hour that does not come
}
"""The times of clock changes."""


@given(BACKUPS, POLICIES, st.data())
@settings(deadline=None)
def test_the_time_zone_of_times_does_not_matter(
    backups: list[Backup], policy: Policy, data: st.DataObject
) -> None:
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    minutes = st.integers(-180, 180).map(lambda number: timedelta(minutes=number))
    utc = [replace(it, created_at=CHANGES[zone] + data.draw(minutes)) for it in backups]
    now = CHANGES[zone] + data.draw(minutes)
    local = [replace(it, created_at=it.created_at.astimezone(ZoneInfo(zone))) for it in utc]
    told = [
        [(it.backup.image_id, it.keep, it.reasons) for it in plan(given, policy, moment)]
        for given, moment in ((utc, now), (local, now.astimezone(ZoneInfo(zone))))
    ]
    assert told[0] == told[1]
