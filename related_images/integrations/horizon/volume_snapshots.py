"""The volume snapshots of the user's project, with a bounded number of requests."""

import itertools
import logging
from collections.abc import Collection
from typing import Any, Final

from related_images.client import ServiceFailed
from related_images.client.backups.volume_snapshots import VolumeSnapshot
from related_images.integrations.horizon import services

LOG = logging.getLogger(__name__)

PAGES: Final = 5
"""The largest number of pages of 1,000 that are read, the newest volume snapshots first."""
ONCE: Final = {"connect_retries": 0, "status_code_retries": 0}
"""The options of requests that are not repeated: a page shows its other data without Cinder."""


class ProjectSnapshots:
    """Find volume snapshots of the user's project."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def find(self, ids: Collection[str]) -> dict[str, VolumeSnapshot] | None:
        """Return those of the volume snapshots that are on the pages read, by ID.

        :returns: ``None`` if Cinder does not answer
        """
        if not ids:
            return {}
        try:
            cinder = services.service(self._request, services.BLOCK_STORAGE)
            pages = itertools.islice(cinder.pages("/snapshots", "snapshots", {}, **ONCE), PAGES)
            shown = itertools.chain.from_iterable(pages)
            return {one["id"]: VolumeSnapshot.of(one) for one in shown if one["id"] in ids}
        except ServiceFailed as error:
            LOG.warning("sizes do not include volume snapshots: %s", error)
            return None
