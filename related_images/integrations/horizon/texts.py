"""Texts for values that several pages show."""

from datetime import timedelta
from typing import Any

from django.utils.translation import ngettext

from related_images.client.backups import retention, stored_policy
from related_images.model import SERVER, VOLUME, VOLUME_BACKUP, VOLUME_SNAPSHOT
from related_images.validation import format_span


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
    if type == SERVER:
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
