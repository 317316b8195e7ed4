"""The use of images as a caller sees it: usages, and the numbers of dependents."""

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from related_images.db import Database, dependent_summary, usages
from related_images.errors import ImageInUse, StoreUnavailable
from related_images.middleware import glance
from related_images.middleware.access import Caller
from related_images.middleware.policy import SHOW_DEPENDENTS
from related_images.middleware.responses import WSGIApp
from related_images.model import UNKNOWN, UNUSED, USED, DependentSummary, Gap, Usage

LOG = logging.getLogger(__name__)


def usages_of(
    app: WSGIApp, database: Database, caller: Caller, image_ids: list[str]
) -> list[Usage]:
    """Return the usage of each image.

    :raises StoreUnavailable: if the database is unavailable
    """
    gaps = usages.open_gaps(database)
    images = _images(app, database, caller, image_ids, gaps)
    owners, created_at = _owners(caller, images), _created_at(images)
    return usages.usages(database, image_ids, caller.visible_to, owners, gaps, created_at)


def summary_of(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    image_id: str,
    counted: dependent_summary.Summary,
) -> DependentSummary:
    """Return the numbers of the dependents of an image.

    :param counted: the numbers that the caller sees
    :raises StoreUnavailable: if the database is unavailable
    """
    (usage,) = usages_of(app, database, caller, [image_id])
    by_type, owners = counted.by_type, counted.by_project.items()
    is_used = any(counts.live for counts in by_type.values())
    return DependentSummary(
        image_id,
        by_type,
        sum(
            project_id is not None and any(counts.live for counts in numbers.values())
            for project_id, numbers in owners
        ),
        usage.used_by_others,
        lower_bound=counted.is_lower_bound,
        all_projects=caller.visible_to is None,
        state=USED if is_used else _state(usage, counted),
        gaps=usage.gaps,
        more_gaps=usage.more_gaps,
    )


def with_dependents(
    app: WSGIApp, database: Database, caller: Caller, image_id: str, error: ImageInUse
) -> ImageInUse:
    """Return a refusal of the guard with the numbers of the dependents.

    The refusal stays as it is if the caller may not get the summary from its own route, or if the
    dependents cannot be counted, whatever fails.
    """
    if not (caller.is_identified and caller.permits(SHOW_DEPENDENTS)):
        return error
    try:
        counted = dependent_summary.summary(database, image_id, caller.visible_to)
        summary = summary_of(app, database, caller, image_id, counted)
    except StoreUnavailable as unavailable:
        LOG.warning(
            "the dependents of image %s are not counted: %s", image_id, unavailable.for_log()
        )
        return error
    except Exception:  # Glance, or a filter behind this one, may raise anything
        LOG.exception("the dependents of image %s are not counted", image_id)
        return error
    return ImageInUse(error.use, error.advice, summary)


def _state(usage: Usage, counted: dependent_summary.Summary) -> str:
    """Return the state without a live dependent: not all may have been counted."""
    is_unknown = counted.is_lower_bound and usage.state == UNUSED
    return UNKNOWN if is_unknown else usage.state


def _images(
    app: WSGIApp,
    database: Database,
    caller: Caller,
    image_ids: list[str],
    gaps: Collection[Gap],
) -> Mapping[str, dict[str, Any]] | None:
    """Return the images as Glance lists them, or ``None`` if Glance fails.

    If the caller sees all projects, Glance is asked only for the images that were ever used: for
    other images, neither the owner nor, without a gap, the creation time matters. For other
    callers, Glance is asked for all images, so that neither the response nor its time depends on
    whether others use an image that the caller does not own.
    """
    if caller.sees_all_projects and not gaps:
        image_ids = usages.ever_used(database, image_ids)
    return glance.find_images(app, caller.environ, image_ids)


def _owners(
    caller: Caller, images: Mapping[str, dict[str, Any]] | None
) -> dict[str, str | None] | None:
    """Return the owners of the images for which the caller is permitted to know of use by others.

    :param images: the images by ID, or ``None`` if Glance fails
    """
    if images is None:
        return None
    owners: dict[str, str | None] = {id: image["owner"] for id, image in images.items()}
    if caller.sees_all_projects:
        return owners
    return {id: owner for id, owner in owners.items() if owner and owner == caller.project_id}


def _created_at(images: Mapping[str, dict[str, Any]] | None) -> dict[str, datetime]:
    times = ((id, glance.created_at(image)) for id, image in (images or {}).items())
    return {id: time for id, time in times if time is not None}
