"""The rules of the policy: who may call each route of the filter, and who may record.

oslo.policy evaluates them. The options ``recording_roles`` and ``admin_roles`` give their defaults,
and a policy file replaces rules. Which relations a caller sees is not a rule:
:mod:`related_images.middleware.access` decides that.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Final

from oslo_policy.policy import Enforcer, RuleDefault, Rules

from related_images import config
from related_images.config import Settings
from related_images.errors import (
    AdminOnly,
    ConfigurationError,
    Forbidden,
    PolicyForbidden,
    RecordingForbidden,
)
from related_images.middleware import policy_file

LOG = logging.getLogger(__name__)

Attributes = tuple[tuple[str, str], ...]
"""Credentials or a target, as the key of a cache: names with texts. Roles are one text, separated
by commas, as keystonemiddleware gives them."""

ROLES: Final = "roles"
SERVICE_ROLES: Final = "service_roles"


@dataclass(frozen=True)
class Rule:
    """A rule: its name in policy files, its default, and the error of a caller that it refuses."""

    name: str
    default: str
    description: str
    refusal: type[Forbidden]


_ALIASES: Final[list[Rule]] = []
_RULES: Final[list[Rule]] = []


def _alias(name: str, default: str, description: str, refusal: type[Forbidden]) -> Rule:
    rule = Rule(policy_file.PREFIX + name, default, description, refusal)
    _ALIASES.append(rule)
    return rule


def _like(alias: Rule, name: str, description: str) -> Rule:
    default = f"rule:{alias.name}"
    rule = Rule(policy_file.PREFIX + name, default, description, alias.refusal)
    _RULES.append(rule)
    return rule


def _has_any(kind: str, roles: Iterable[str]) -> str:
    return " or ".join(f"{kind}:{role_word(role)}" for role in sorted(roles))


def _recorder(roles: Iterable[str]) -> str:
    return f"{_has_any('role', roles)} or {_has_any(SERVICE_ROLES, roles)}"


def _administrator(roles: Iterable[str]) -> str:
    return _has_any("role", roles)


def role_word(role: str) -> str:
    """Return a role as policies name it: ``=`` and two digits for a character that they cannot."""
    return re.sub(r"[\s()%='\"]", lambda found: f"={ord(found[0]):02x}", role.lower())


RECORDER: Final = _alias(
    "recorder",
    _recorder(config.OPTIONS["recording_roles"].default),
    "Who may record relations; the default is each role of the option recording_roles, in the "
    "user's own token (role) or in a service token (service_roles)",
    RecordingForbidden,
)
ADMINISTRATOR: Final = _alias(
    "administrator",
    _administrator(config.OPTIONS["admin_roles"].default),
    "Who may register installations; the default is each role of the option admin_roles",
    AdminOnly,
)
REMOVER: Final = _alias(
    "remover",
    f"rule:{RECORDER.name} or rule:{ADMINISTRATOR.name}",
    "Who may remove relations and origins, and record that a resource was deleted. A caller "
    "without a role of recording_roles or admin_roles may do this only for resources and images of "
    "its project",
    RecordingForbidden,
)
READER: Final = _alias(
    "reader",
    "@",
    "Who may read: by default each caller with a valid token. A caller sees the relations of its "
    "project. To permit only the readers of secure RBAC, set this rule to "
    '"role:reader or rule:related_images:recorder"',
    PolicyForbidden,
)

CREATE_IMAGE: Final = _like(RECORDER, "images:create", "Create an image with instance headers")
LIST_RELATIONS: Final = _like(READER, "relations:list", "List relations, also of one image")
CREATE_RELATION: Final = _like(
    RECORDER, "relations:create", "Attach images to resources, and roll back one's own report"
)
DELETE_RELATION: Final = _like(REMOVER, "relations:delete", "Detach an image from a resource")
LIST_ORIGINS: Final = _like(READER, "origins:list", "List from which resource a resource comes")
CREATE_ORIGIN: Final = _like(RECORDER, "origins:create", "Record origins of resources")
DELETE_ORIGIN: Final = _like(REMOVER, "origins:delete", "Remove a wrong origin")
REPORT_COVERAGE: Final = _like(RECORDER, "witnesses:report", "Report what a witness covers")
SHOW_LINEAGE: Final = _like(READER, "lineage:show", "List ancestors and descendants of an image")
SHOW_DEPENDENTS: Final = _like(READER, "dependents:show", "List or count what depends on an image")
LIST_INSTANCES: Final = _like(READER, "instances:list", "List resources and their images")
SHOW_INSTANCE: Final = _like(READER, "instances:show", "Show one resource")
DELETE_INSTANCE: Final = _like(
    REMOVER, "instances:delete", "Record that a resource was deleted; its images stay"
)
SHOW_USAGES: Final = _like(READER, "usages:show", "Show how much images are used")
LIST_RESOURCE_TYPES: Final = _like(
    ADMINISTRATOR, "resource-types:list", "List registered resource types"
)
CREATE_RESOURCE_TYPE: Final = _like(
    ADMINISTRATOR, "resource-types:create", "Register a resource type"
)
DELETE_RESOURCE_TYPE: Final = _like(
    ADMINISTRATOR, "resource-types:delete", "Remove a resource type"
)
LIST_INSTALLATIONS: Final = _like(
    ADMINISTRATOR, "installations:list", "List registered installations"
)
CREATE_INSTALLATION: Final = _like(
    ADMINISTRATOR, "installations:create", "Register an installation"
)
DELETE_INSTALLATION: Final = _like(
    ADMINISTRATOR, "installations:delete", "Remove the registration of an installation"
)
SHOW_INFO: Final = _like(READER, "info:show", "Show the capabilities and state of the deployment")
SHOW_SCHEMA: Final = _like(READER, "schemas:show", "Show a JSON schema or the OpenAPI document")

RULES: Final = (*_ALIASES, *_RULES)


class Policy:
    """The policy of one filter: the default rules, and the policy file if an option names one.

    A changed file is read again, as soon as nobody has written to it for a second. If the file is
    then wrong or missing, the former rules stay in force, and the log has the reason.

    :raises ConfigurationError: if the policy file cannot be used
    """

    def __init__(self, settings: Settings) -> None:
        self._defaults = _defaults(settings)
        self._path = settings.policy_file
        self._reading = Lock()
        self._reader = _reader(self._path, self._defaults)
        self._fault = ""
        self._refused: tuple[int, ...] | None = None
        self._retry_at = 0.0
        if self._path:
            self._read()
        else:
            self._decide = _decisions(Rules.from_dict(self._defaults))

    def permits(self, rule: Rule, credentials: Attributes, target: Attributes) -> bool:
        """Return whether the rule permits a request.

        :param credentials: what the tokens state; a name that they do not state is absent
        :param target: what ``%(…)s`` in a rule refers to
        """
        if self._path:
            self._read_again()
        return self._decide(rule.name, credentials, target)

    def _read_again(self) -> None:
        """Read the file again if it changed, unless another thread does so now.

        A wrong file is read again once per second, since the fault may be that of the system.
        """
        if not self._reading.acquire(blocking=False):
            return
        version = None
        try:
            version = policy_file.version(self._path)
            is_known = version == self._version or (
                version == self._refused and time.monotonic() < self._retry_at
            )
            if is_known or policy_file.is_being_written(version):
                return
            self._read()
            LOG.info("the policy file %s changed and was read again", self._path)
            self._fault = ""
        except ConfigurationError as error:
            self._refused, self._retry_at = version, time.monotonic() + _RETRY
            if self._fault != str(error):
                self._fault = str(error)
                LOG.error("the former policy stays in force: %s", error)
        finally:
            self._reading.release()

    def _read(self) -> None:
        """Read and check the file, and decide by its rules from now on.

        oslo.policy itself would read a file again only if its date is later than before.
        """
        # for oslo.policy, a missing file has no rules
        version = policy_file.version(self._path)
        try:
            self._reader.load_rules(force_reload=True)
        except policy_file.FAULTS as error:
            policy_file.read(self._path)  # its error names the fault better
            raise ConfigurationError(f"{self._path} is not a policy file: {error}") from None
        given = {name: rule.check_str for name, rule in self._reader.file_rules.items()}
        policy_file.check(self._path, given, self._reader.rules, self._defaults)
        if policy_file.version(self._path) != version:
            raise ConfigurationError(f"{self._path} changed while it was read")
        self._decide = _decisions(self._reader.rules)
        self._version = version


_RETRY: Final = 1.0
"""Seconds until a wrong file is read again."""

_Decide = Callable[[str, Attributes, Attributes], bool]

_DECISIONS: Final = 256
"""The number of decisions that a filter remembers."""


def _as_dict(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes as oslo.policy takes them."""
    found: dict[str, Any] = dict(attributes)
    for name in (ROLES, SERVICE_ROLES):
        if name in found:
            roles = map(str.strip, found[name].split(","))
            found[name] = [role_word(role) for role in roles if role]
    return found


def _decisions(rules: Mapping[str, Any]) -> _Decide:
    """Return the decisions by complete rules; the function takes a rule, credentials and a target.

    It remembers its last results: a check depends on its arguments alone, since a policy file
    cannot name a remote server. oslo.policy inspects the signature of each check, which takes
    longer than the check.
    """
    enforcer = Enforcer(config.read([]), rules=dict(rules), use_conf=False)

    @lru_cache(_DECISIONS)
    def decide(rule: str, credentials: Attributes, target: Attributes) -> bool:
        return bool(enforcer.enforce(rule, _as_dict(target), _as_dict(credentials)))

    return decide


def _reader(path: str, defaults: Mapping[str, str]) -> Enforcer:
    """Return an enforcer that reads the file, and adds the defaults of the rules not in it."""
    reader = Enforcer(config.read([]), path or None)
    reader.conf.set_override("policy_dirs", [], "oslo_policy")
    reader.register_defaults([RuleDefault(*rule) for rule in defaults.items()])
    return reader


def _defaults(settings: Settings) -> dict[str, str]:
    by_option = {
        RECORDER.name: _recorder(settings.recording_roles),
        ADMINISTRATOR.name: _administrator(settings.admin_roles),
    }
    return {rule.name: rule.default for rule in RULES} | by_option
