"""The caller's identity, from the headers that keystonemiddleware sets, and its permissions.

Roles decide what a caller may record and remove. Its project decides which relations it sees. The
registration of an installation decides which service users may report on it:
:mod:`related_images.db.installations` checks that in the transaction that records.
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
    """The caller of one request, as confirmed by keystonemiddleware."""

    environ: Environ
    settings: Settings

    @property
    def is_identified(self) -> bool:
        """Whether keystonemiddleware confirmed the user's token."""
        return self.environ.get("HTTP_X_IDENTITY_STATUS") == CONFIRMED

    @property
    def project_id(self) -> str | None:
        """The project of the user's token, or ``None`` if the token is not confirmed."""
        return self.environ.get("HTTP_X_PROJECT_ID") or None if self.is_identified else None

    @property
    def is_admin(self) -> bool:
        """Whether the user has an admin role."""
        return self.is_identified and self._has_role(self.settings.admin_roles, "HTTP_X_ROLES")

    @property
    def has_service_token(self) -> bool:
        """Whether the request has a confirmed service token with a recording role.

        A confirmed token is not enough: any valid token can be sent as a service token.
        """
        return self.environ.get("HTTP_X_SERVICE_IDENTITY_STATUS") == CONFIRMED and self._has_role(
            self.settings.recording_roles, "HTTP_X_SERVICE_ROLES"
        )

    @property
    def has_recording_role(self) -> bool:
        """Whether the user has a recording role."""
        return self.is_identified and self._has_role(self.settings.recording_roles, "HTTP_X_ROLES")

    @property
    def may_record(self) -> bool:
        """Whether the caller may record relations."""
        return self.has_service_token or self.has_recording_role

    @property
    def sees_all_projects(self) -> bool:
        """Whether the caller sees the relations of all projects."""
        return self.is_admin or self.may_record

    @property
    def visible_to(self) -> str | None:
        """The project whose relations the caller sees, or ``None`` for all projects."""
        return None if self.sees_all_projects else self.project_id or ""

    @property
    def may_remove(self) -> bool:
        """Whether the caller may remove relations and record that a server was deleted."""
        return self.may_record or self.is_admin

    def require_identity(self) -> None:
        """Check that the user's token is confirmed.

        :raises NotIdentified: if it is not
        """
        if not self.is_identified:
            raise NotIdentified("the request has no valid token; send one in X-Auth-Token")

    def require_recording_role(self) -> None:
        """Check that the caller may record relations.

        :raises RecordingForbidden: if it has no such role; the message names the roles
        """
        if not self.may_record:
            raise RecordingForbidden(self._recording_roles_needed())

    def require_removal_role(self) -> None:
        """Check that the caller may remove relations.

        :raises RecordingForbidden: if it has no such role; the message names the roles
        """
        if not self.may_remove:
            raise RecordingForbidden(
                f"{self._recording_roles_needed()}; or one of these admin roles, in the caller's "
                f"own token: {self.admin_roles}"
            )

    def require_admin_role(self) -> None:
        """Check that the caller is an administrator.

        :raises AdminOnly: if it is not; the message names the roles
        """
        if not self.is_admin:
            raise AdminOnly(f"one of these roles is needed: {self.admin_roles}")

    @property
    def admin_roles(self) -> str:
        """The admin roles, separated by commas, for an error message."""
        return ", ".join(sorted(self.settings.admin_roles))

    def _recording_roles_needed(self) -> str:
        roles = ", ".join(sorted(self.settings.recording_roles))
        return (
            "one of these roles is needed, in the caller's own token or in a service token: "
            + roles
        )

    @property
    def description(self) -> str:
        """The caller and the right by which it removes relations, for a log line."""
        service = self.environ.get("HTTP_X_SERVICE_USER_ID") if self.has_service_token else None
        right = "administrator" if self.is_admin else "service"
        through = f" through service user {shown(service)}" if service else ""
        user = shown(self.environ.get("HTTP_X_USER_ID"))
        return f"{right}, user {user} of project {shown(self.project_id)}{through}"

    def reporter(self) -> Reporter:
        """Return the service users of this request, to check when it records a relation."""
        users = {
            self.environ.get("HTTP_X_SERVICE_USER_ID") if self.has_service_token else None,
            self.environ.get("HTTP_X_USER_ID") if self.has_recording_role else None,
        }
        return Reporter(
            frozenset(user for user in users if user),
            self.settings.require_registered_installation,
        )

    def service(self) -> Reporter | None:
        """Return the service user of the service token, without the user of the caller's own token;
        ``None`` without a service token that has a recording role."""
        if not self.has_service_token:
            return None
        user = self.environ.get("HTTP_X_SERVICE_USER_ID")
        users = frozenset([user] if user else [])
        return Reporter(users, self.settings.require_registered_installation)

    def remover(self) -> Reporter:
        """Return the reporter of a removal: an administrator may remove from any installation."""
        return replace(self.reporter(), for_any_installation=self.is_admin)

    def _has_role(self, roles: frozenset[str], key: str) -> bool:
        callers_roles = self.environ.get(key, "").lower().split(",")
        return not roles.isdisjoint(map(str.strip, callers_roles))
