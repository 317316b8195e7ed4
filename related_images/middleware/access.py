"""The caller's identity, from the headers that keystonemiddleware sets, and its permissions.

The rules of :mod:`related_images.middleware.policy` decide what a caller may do. The role options
and its project decide which relations it sees, whatever the rules say. The registration of an
installation decides which service users may report on it:
:mod:`related_images.db.installations` checks that in the transaction that records.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from related_images.config import Settings
from related_images.db import Reporter
from related_images.errors import NotIdentified
from related_images.middleware.environ import Environ
from related_images.middleware.policy import (
    ADMINISTRATOR,
    CREATE_IMAGE,
    READER,
    RECORDER,
    REMOVER,
    ROLES,
    SERVICE_ROLES,
    Attributes,
    Policy,
    Rule,
)
from related_images.validation import shown

CONFIRMED = "Confirmed"


@dataclass(frozen=True)
class Caller:
    """The caller of one request, as confirmed by keystonemiddleware."""

    environ: Environ
    settings: Settings
    policy: Policy

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
        """Whether the caller may create images with instance headers."""
        return self.permits(CREATE_IMAGE)

    @property
    def sees_all_projects(self) -> bool:
        """Whether the caller sees the relations of all projects. No rule decides this."""
        return self.is_admin or self.has_service_token or self.has_recording_role

    @property
    def visible_to(self) -> str | None:
        """The project whose relations the caller sees, or ``None`` for all projects."""
        return None if self.sees_all_projects else self.project_id or ""

    def permits(self, rule: Rule) -> bool:
        """Return whether a rule permits a request of the caller."""
        return self._permits(rule, self._own_credentials + self._service_credentials)

    def require_identity(self) -> None:
        """Check that the user's token is confirmed.

        :raises NotIdentified: if it is not
        """
        if not self.is_identified:
            raise NotIdentified("the request has no valid token; send one in X-Auth-Token")

    def require(self, rule: Rule) -> None:
        """Check that a rule permits the request.

        :raises Forbidden: if it does not; the class is ``rule.refusal``, and the message names the
            roles that are needed, or the rule if there is a policy file
        """
        if not self.permits(rule):
            raise rule.refusal(self._needed(rule))

    def _needed(self, rule: Rule) -> str:
        if self.settings.policy_file:
            return (
                f"the rule {rule.name} of the policy file of Glance's operator does not permit it"
            )
        defaults = {
            f"rule:{RECORDER.name}": self._recording_roles_needed(),
            f"rule:{REMOVER.name}": f"{self._recording_roles_needed()}; or one of these admin "
            f"roles, in the caller's own token: {self.admin_roles}",
            f"rule:{ADMINISTRATOR.name}": f"one of these roles is needed: {self.admin_roles}",
            f"rule:{READER.name}": "a valid token is needed",
        }
        return defaults[rule.default]

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
        right = (
            "administrator"
            if self.is_admin
            else "service"
            if self.sees_all_projects
            else "permitted by the policy"
        )
        through = f" through service user {shown(service)}" if service else ""
        user = shown(self.environ.get("HTTP_X_USER_ID"))
        return f"{right}, user {user} of project {shown(self.project_id)}{through}"

    def reporter(self, rule: Rule = RECORDER) -> Reporter:
        """Return the users whose tokens give the right to report, to check them when it is stored.

        :param rule: the rule that permits the request
        """
        own = self._permits(rule, self._own_credentials)
        lent = self._service_credentials
        without_own_roles = ((ROLES, ""), *self._own_credentials[1:], *lent)
        # by the service token alone, or only by both tokens together
        through_service = bool(lent) and (
            self._permits(rule, without_own_roles) or (not own and self.permits(rule))
        )
        users = {
            self.environ.get("HTTP_X_SERVICE_USER_ID") if through_service else None,
            self.environ.get("HTTP_X_USER_ID") if own else None,
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

    def remover(self, rule: Rule = REMOVER) -> Reporter:
        """Return the reporter of a removal: an administrator may remove from any installation."""
        if self.is_admin:
            return replace(self.reporter(), for_any_installation=True)
        return self.reporter(rule)

    def _permits(self, rule: Rule, credentials: Attributes) -> bool:
        # no rule permits a request without a valid token
        return bool(credentials) and self.policy.permits(rule, credentials, self._target)

    @cached_property
    def _own_credentials(self) -> Attributes:
        """What the user's token states, its roles first; empty if the token is not confirmed."""
        if not self.is_identified:
            return ()
        stated = self._stated(
            user_id="HTTP_X_USER_ID",
            project_id="HTTP_X_PROJECT_ID",
            domain_id="HTTP_X_DOMAIN_ID",
            system_scope="HTTP_OPENSTACK_SYSTEM_SCOPE",
        )
        return (ROLES, self.environ.get("HTTP_X_ROLES", "")), *stated

    @cached_property
    def _service_credentials(self) -> Attributes:
        """What the service token states; empty if the token is not confirmed."""
        if self.environ.get("HTTP_X_SERVICE_IDENTITY_STATUS") != CONFIRMED:
            return ()
        stated = self._stated(
            service_user_id="HTTP_X_SERVICE_USER_ID", service_project_id="HTTP_X_SERVICE_PROJECT_ID"
        )
        return (SERVICE_ROLES, self.environ.get("HTTP_X_SERVICE_ROLES", "")), *stated

    @cached_property
    def _target(self) -> Attributes:
        return self._stated(user_id="HTTP_X_USER_ID", project_id="HTTP_X_PROJECT_ID")

    def _stated(self, **keys: str) -> Attributes:
        texts = [(name, self.environ.get(key)) for name, key in keys.items()]
        return tuple((name, text) for name, text in texts if text)

    def _has_role(self, roles: frozenset[str], key: str) -> bool:
        callers_roles = self.environ.get(key, "").lower().split(",")
        return not roles.isdisjoint(map(str.strip, callers_roles))
