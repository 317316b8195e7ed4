"""The volume snapshots that belong to the backups of servers on volumes."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from keystoneauth1.adapter import Adapter

from related_images.client.backups.service import Service
from related_images.client.errors import ServiceFailed

AVAILABLE: Final = "available"
DELETING: Final = "deleting"

ALL: Final = {"all_tenants": "1"}
"""The filter with which Cinder shows an administrator all projects; it ignores it for others."""

FEW: Final = 10
"""The number of volume snapshots that are not worth a page of all of them."""

SECONDS: Final = 120.0
"""Seconds to wait until Cinder has deleted volume snapshots."""

PAUSE: Final = 1.0
GIBIBYTE: Final = 2**30


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """A volume snapshot of Cinder.

    :ivar size: the size of its volume in bytes
    """

    id: str
    volume_id: str
    status: str
    size: int

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> "VolumeSnapshot":
        """Return the volume snapshot as Cinder shows it."""
        return cls(shown["id"], shown["volume_id"], shown["status"], shown["size"] * GIBIBYTE)


class VolumeSnapshots:
    """Read and delete volume snapshots.

    :param adapter: a keystoneauth1 ``Adapter`` of Cinder

    Every method raises :exc:`ServiceFailed` if a request fails.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._cinder = Service("Cinder", adapter)

    def exist(self) -> bool:
        """Return whether the caller sees any volume snapshot."""
        body = self._cinder.request("GET", "/snapshots", params={**ALL, "limit": "1"})
        return bool(body["snapshots"])

    def find(self, ids: Collection[str]) -> dict[str, VolumeSnapshot]:
        """Return those of the volume snapshots that exist, by ID. Many are read from pages."""
        found = self._each(ids) if len(ids) <= FEW else self._listed(frozenset(ids))
        return {shown["id"]: VolumeSnapshot.of(shown) for shown in found}

    def statuses(self, ids: Collection[str]) -> dict[str, str]:
        """Return the statuses of those of the volume snapshots that exist, by ID."""
        return {id: one.status for id, one in self.find(ids).items()}

    def delete(self, ids: Iterable[str]) -> dict[str, str]:
        """Ask Cinder to delete the volume snapshots; those that are gone are ignored.

        :returns: the reasons why Cinder refuses it, by ID
        """
        refused = {}
        for id in ids:
            try:
                with _ignoring_missing():
                    self._cinder.request("DELETE", f"/snapshots/{id}")
            except ServiceFailed as error:
                refused[id] = str(error)
        return refused

    def remaining(self, ids: Collection[str], seconds: float = SECONDS) -> dict[str, str]:
        """Wait until Cinder has deleted volume snapshots.

        :param seconds: the longest time to wait
        :returns: the reasons why the others remain, by ID
        """
        until = time.monotonic() + seconds
        while True:
            left = self.find(ids)
            is_over = time.monotonic() >= until
            if is_over or not any(one.status == DELETING for one in left.values()):
                return self._reasons(left)
            time.sleep(PAUSE)

    def _reasons(self, left: Mapping[str, VolumeSnapshot]) -> dict[str, str]:
        volumes = self._volumes_of(left) if left else {}
        return {
            id: f"Cinder did not delete it (status {one.status})"
            + "".join(f"; the volume {volume_id} was made from it" for volume_id in volumes[id])
            for id, one in left.items()
        }

    def _volumes_of(self, ids: Collection[str]) -> Mapping[str, list[str]]:
        """Return the volumes that were made from each volume snapshot."""
        found: dict[str, list[str]] = defaultdict(list)
        for shown in self._cinder.items("/volumes/detail", "volumes", ALL):
            if shown["snapshot_id"] in ids:
                found[shown["snapshot_id"]].append(shown["id"])
        return found

    def _each(self, ids: Collection[str]) -> Iterator[Mapping[str, Any]]:
        for id in ids:
            with _ignoring_missing():
                yield self._cinder.request("GET", f"/snapshots/{id}")["snapshot"]

    def _listed(self, ids: Collection[str]) -> Iterator[Mapping[str, Any]]:
        return (
            one for one in self._cinder.items("/snapshots", "snapshots", ALL) if one["id"] in ids
        )


@contextmanager
def _ignoring_missing() -> Iterator[None]:
    """Ignore that something does not exist."""
    try:
        yield
    except ServiceFailed as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
