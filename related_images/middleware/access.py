"""Who is calling, from the headers that keystonemiddleware sets, and what the caller may do.

Roles decide what is recorded and removed, projects what is seen. Which service may report on an
installation, its registration decides: :mod:`related_images.db.installations` checks that in the
transaction that records, for the users that :meth:`Caller.reporter` names.
"""

from dataclasses import dataclass, replace

from related_images.config import Settings
from related_images.db import Reporter
from related_images.errors import AdminOnly, NotIdentified, RecordingForbidden
from related_images.middleware.environ import Environ
from related_images.validation import shown

CONFIRMED = "Confirmed"


@dataclass(frozen=True)
class Caller:
    """The caller of one request, as far as the identity service confirms it."""

    environ: Environ
    settings: Settings

    @property
    def is_identified(self) -> bool:
        """Whether the user's own token is confirmed."""
        return self.environ.get("HTTP_X_IDENTITY_STATUS") == CONFIRMED

    @property
    def project_id(self) -> str | None:
        """The project that the user's token is for."""
        return self.environ.get("HTTP_X_PROJECT_ID") or None if self.is_identified else None

    @property
    def is_admin(self) -> bool:
        """Whether the user has one of the administrator's roles."""
        return self.is_identified and self._has(self.settings.admin_roles, "HTTP_X_ROLES")

    @property
    def is_backed_by_service(self) -> bool:
        """Whether a trusted service sent the user's request with its own token beside it.

        The role counts, not the status alone: any token may be sent as a service token.
        """
        return self.environ.get("HTTP_X_SERVICE_IDENTITY_STATUS") == CONFIRMED and self._has(
            self.settings.recording_roles, "HTTP_X_SERVICE_ROLES"
        )

    @property
    def is_service(self) -> bool:
        """Whether the user is itself a trusted service."""
        return self.is_identified and self._has(self.settings.recording_roles, "HTTP_X_ROLES")

    @property
    def may_record(self) -> bool:
        return self.is_backed_by_service or self.is_service

    @property
    def sees_all(self) -> bool:
        return self.is_admin or self.may_record

    @property
    def visible_to(self) -> str | None:
        """The project whose relations this caller sees, or ``None`` if it sees those of all."""
        return None if self.sees_all else self.project_id or ""

    @property
    def may_remove(self) -> bool:
        """Whether the caller may take back what was recorded, and record that a server is gone."""
        return self.may_record or self.is_admin

    def must_be_identified(self) -> None:
        """Raise :exc:`NotIdentified` unless the identity service confirms the caller's token."""
        if not self.is_identified:
            raise NotIdentified("a token that the identity service confirms is needed")

    def must_record(self) -> None:
        """Raise :exc:`RecordingForbidden` unless the caller may record."""
        if not self.may_record:
            raise RecordingForbidden(self._recorders())

    def must_remove(self) -> None:
        """Raise :exc:`RecordingForbidden` unless the caller may remove."""
        if not self.may_remove:
            raise RecordingForbidden(f"{self._recorders()}; or an administrator's: {self.admins}")

    def must_administrate(self) -> None:
        """Raise :exc:`AdminOnly` unless the caller is an administrator."""
        if not self.is_admin:
            raise AdminOnly(f"one of these roles is needed: {self.admins}")

    @property
    def admins(self) -> str:
        """The roles of administrators, as an error names them."""
        return ", ".join(sorted(self.settings.admin_roles))

    def _recorders(self) -> str:
        roles = ", ".join(sorted(self.settings.recording_roles))
        return (
            "one of these roles is needed, in the caller's own token or in a service token: "
            + roles
        )

    @property
    def described(self) -> str:
        """Who the caller is and by which right it may remove, as a log names it."""
        named = self.environ.get("HTTP_X_SERVICE_USER_ID") if self.is_backed_by_service else None
        right = "administrator" if self.is_admin else "service"
        through = f" through service user {shown(named)}" if named else ""
        user = shown(self.environ.get("HTTP_X_USER_ID"))
        return f"{right}, user {user} of project {shown(self.project_id)}{through}"

    def reporter(self) -> Reporter:
        """The service users whose token or service token this caller sent."""
        users = {
            self.environ.get("HTTP_X_SERVICE_USER_ID") if self.is_backed_by_service else None,
            self.environ.get("HTTP_X_USER_ID") if self.is_service else None,
        }
        return Reporter(
            frozenset(user for user in users if user),
            self.settings.require_registered_installation,
        )

    def remover(self) -> Reporter:
        """The same for a removal, which an administrator may do in any installation."""
        return replace(self.reporter(), for_any_installation=self.is_admin)

    def _has(self, roles: frozenset[str], key: str) -> bool:
        named = self.environ.get(key, "").lower().split(",")
        return not roles.isdisjoint(map(str.strip, named))
