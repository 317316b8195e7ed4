"""Texts for values that several pages show."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from related_images.client import DependentCounts
from related_images.client.backups import retention, stored_policy
from related_images.client.graph_drawing import IMAGE
from related_images.model import SERVER, VOLUME, VOLUME_BACKUP, VOLUME_SNAPSHOT
from related_images.validation import format_span

REASONS: Final = {
    retention.NO_RULE: _("no rule keeps it"),
    retention.LAST_RESORT: _("one active backup always stays"),
    retention.GONE: _("the server was deleted"),
    retention.FOREIGN: _("it belongs to another project"),
    retention.OF_ANOTHER: _("also made from another server"),
    retention.FUTURE: _("its time is in the future"),
    retention.OTHERS: _("in use by another project"),
    retention.USE_UNKNOWN: _("use unknown"),
    "protected": _("protected"),
    "in use": _("in use"),
    "hidden": _("hidden"),
    "deactivated": _("deactivated"),
}
"""The reasons of decisions on backups. The others are names of rules, which are not translated."""


def age(span: timedelta) -> str:
    """Return an age in its largest unit."""
    if span >= timedelta(days=1):
        return str(ngettext("%d day", "%d days", span.days) % span.days)
    hours, rest = divmod(span.seconds, 3600)
    if hours:
        return str(ngettext("%d hour", "%d hours", hours) % hours)
    minutes = rest // 60
    return str(ngettext("%d minute", "%d minutes", minutes) % minutes)


def counted(number: int, type: str) -> str:
    """Return the number of resources of a type."""
    if type == IMAGE:
        text = ngettext("%d image", "%d images", number)
    elif type == SERVER:
        text = ngettext("%d server", "%d servers", number)
    elif type == VOLUME:
        text = ngettext("%d volume", "%d volumes", number)
    elif type == VOLUME_SNAPSHOT:
        text = ngettext("%d volume snapshot", "%d volume snapshots", number)
    elif type == VOLUME_BACKUP:
        text = ngettext("%d volume backup", "%d volume backups", number)
    else:
        return f"{number} {type}"
    return str(text % number)


def numbers(by_type: Mapping[str, int]) -> str:
    """Return the numbers of resources of several types."""
    return ", ".join(counted(number, type) for type, number in by_type.items())


def users(by_type: Iterable[tuple[str, DependentCounts]]) -> str:
    """Return the numbers of the live resources that depend on an image."""
    return ", ".join(_user(type, counts) for type, counts in by_type)


def _user(type: str, counts: DependentCounts) -> str:
    resources = counted(counts.live, type)
    if not counts.indirect:
        return resources
    through = gettext("%(resources)s (%(number)d of them through images that were made from it)")
    return str(through % {"resources": resources, "number": counts.indirect})


def reasons(given: Iterable[str]) -> str:
    """Return the reasons of a decision on a backup."""
    return ", ".join(str(REASONS.get(reason, reason)) for reason in given)


def policy(stored: Any) -> str:
    """Return the rules of a stored policy, with the names that the command line has."""
    rules = stored.retention
    found: list[tuple[str, Any]] = [
        (f"keep_{rule}", getattr(rules, rule)) for rule in retention.COUNTED
    ]
    found.append((stored_policy.WITHIN, rules.within and format_span(rules.within)))
    found.append((stored_policy.LABELS, ", ".join(sorted(rules.labels))))
    if stored.ages:
        found.append((stored_policy.OLDER_THAN, format_span(stored.ages.older_than)))
        critical = stored.ages.critical
        found.append((stored_policy.CRITICAL, critical and format_span(critical)))
    return ", ".join(f"{name} {value}" for name, value in found if value)
