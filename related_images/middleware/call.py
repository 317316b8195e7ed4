"""One request to a route of ours: what handlers ask of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from related_images import model, validation
from related_images.config import Settings
from related_images.db import Database
from related_images.errors import AdminOnly, FieldInvalid, RecordingForbidden
from related_images.middleware import paging
from related_images.middleware.answers import WSGIApp
from related_images.middleware.environ import Environ
from related_images.middleware.identity import Caller

Outcome = tuple[HTTPStatus, Any]


@dataclass(frozen=True)
class Call:
    """One request to a route of ours; ``ids`` are those in its path."""

    app: WSGIApp
    database: Database
    settings: Settings
    environ: Environ
    caller: Caller
    ids: Mapping[str, str]

    def instance(self) -> model.InstanceRef:
        """The instance in the path."""
        return model.InstanceRef(self.ids["installation_uuid"], self.ids["instance_id"])

    def image_id(self) -> str:
        """The image in the path."""
        return validation.image_id(self.ids["image_id"])

    def query(self, known: Mapping[str, paging.Read]) -> paging.Query:
        return paging.read(self.query_string, known)

    @property
    def query_string(self) -> str:
        return str(self.environ.get("QUERY_STRING", ""))

    def must_record(self) -> None:
        if not self.caller.may_record:
            raise recording_forbidden(self.settings)

    def must_remove(self) -> None:
        if not self.caller.may_remove:
            roles = ", ".join(sorted(self.settings.admin_roles))
            raise RecordingForbidden(f"{_recorders(self.settings)}; or an administrator's: {roles}")

    def must_administrate(self) -> None:
        if not self.caller.is_admin:
            roles = ", ".join(sorted(self.settings.admin_roles))
            raise AdminOnly(f"one of these roles is needed: {roles}")


def recording_forbidden(settings: Settings) -> RecordingForbidden:
    return RecordingForbidden(_recorders(settings))


def _recorders(settings: Settings) -> str:
    roles = ", ".join(sorted(settings.recording_roles))
    return f"one of these roles is needed, in the caller's own token or in a service token: {roles}"


def fields(body: dict[str, Any], needed: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
    """The body, which has the ``needed`` fields and none but these and the ``optional`` ones.

    :raises FieldInvalid: naming the field
    """
    known = [*needed, *optional]
    missing = [name for name in needed if name not in body]
    unknown = [name for name in body if name not in known]
    if missing or unknown:
        wrong = (
            f"{missing[0]} is missing" if missing else f"{validation.shown(unknown[0])} is unknown"
        )
        raise FieldInvalid(f"the field {wrong}; known are {', '.join(known)}")
    return body
