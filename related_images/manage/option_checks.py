"""Whether the configuration of Glance, Nova and Cinder lets them report, and be believed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oslo_config import cfg

from related_images import config
from related_images.errors import ConfigurationError
from related_images.manage.findings import Finding, found

TOKENS: Final = "service_user"
BUS: Final = "oslo_messaging_notifications"
NOVA_EVENTS: Final = "notifications"


@dataclass(frozen=True)
class _Rule:
    """A setting of a service that related-images needs.

    :ivar is_right: takes the value, ``None`` if it is not set
    :ivar advice: the setting to change
    :ivar instead: an option of the same group that may be set instead
    """

    group: str
    option: cfg.Opt
    is_right: Callable[[Any], bool]
    advice: str
    instead: str | None = None


_SERVICE_TOKEN: Final = _Rule(
    TOKENS,
    cfg.BoolOpt("send_service_user_token", default=False),
    bool,
    "set send_service_user_token = true in [service_user], with an account that has the role "
    "service",
)
_ACCOUNT: Final = _Rule(
    TOKENS,
    cfg.StrOpt("auth_type"),
    bool,
    "set auth_type and the options of an account with the role service in [service_user]",
    instead="auth_section",
)
_DRIVER: Final = _Rule(
    BUS,
    cfg.MultiStrOpt("driver", default=[]),
    lambda drivers: bool({"messaging", "messagingv2"} & set(drivers)),
    "set driver = messagingv2 in [oslo_messaging_notifications]; without it no notifications are "
    "sent",
)


def _nova_rules(topic: str) -> tuple[_Rule, ...]:
    return (
        _SERVICE_TOKEN,
        _ACCOUNT,
        _DRIVER,
        _Rule(
            NOVA_EVENTS,
            cfg.StrOpt("notification_format", default="unversioned"),
            lambda text: text in ("versioned", "both"),
            "set notification_format = versioned (or both) in [notifications]",
        ),
        _Rule(
            NOVA_EVENTS,
            cfg.ListOpt("versioned_notifications_topics", default=["versioned_notifications"]),
            lambda topics: topic in topics,
            f"add {topic} to versioned_notifications_topics in [notifications], or give the topic "
            "of `related-images listen` with --topic",
        ),
        _Rule(
            NOVA_EVENTS,
            cfg.BoolOpt("bdms_in_notifications", default=False),
            bool,
            "set bdms_in_notifications = true in [notifications]; without it the listener does "
            "not know the root volumes of servers",
        ),
    )


def _cinder_rules(topic: str) -> tuple[_Rule, ...]:
    topics = _Rule(
        BUS,
        cfg.ListOpt("topics", default=["notifications"]),
        lambda topics: topic in topics,
        f"add {topic} to topics in [oslo_messaging_notifications], or give the topic of "
        "`related-images listen` with --cinder-topic",
    )
    return _SERVICE_TOKEN, _ACCOUNT, _DRIVER, topics


def nova(process: str, files: Sequence[str], topic: str) -> Iterator[Finding]:
    """Check the configuration of a process of Nova.

    :param process: its name, such as ``nova-compute``
    :param files: its configuration files, the last one with the highest precedence
    :param topic: the topic that ``related-images listen`` reads
    """
    return _check(process, files, _nova_rules(topic))


def cinder(files: Sequence[str], topic: str) -> Iterator[Finding]:
    """Check the configuration of Cinder.

    :param files: as for :func:`nova`
    :param topic: the topic of Cinder that ``related-images listen`` reads
    """
    return _check("cinder", files, _cinder_rules(topic))


def glance(files: Sequence[str], recording_roles: frozenset[str]) -> Iterator[Finding]:
    """Check which service tokens Glance accepts.

    :param files: as for :func:`nova`
    :param recording_roles: the option of the filter
    """
    roles = ", ".join(sorted(recording_roles))
    accepted = _Rule(
        "keystone_authtoken",
        cfg.ListOpt("service_token_roles", default=["service"]),
        lambda names: bool(recording_roles & {name.lower() for name in names}),
        f"add one of recording_roles ({roles}) to service_token_roles in [keystone_authtoken]",
    )
    return _check("Glance", files, (accepted,))


def flavor(files: Sequence[str]) -> str:
    """Return the flavor of Glance's pipeline; empty if none is set.

    :raises ConfigurationError: if a file cannot be read
    """
    conf = config.read(files)
    conf.register_opt(cfg.StrOpt("flavor"), "paste_deploy")
    return conf.paste_deploy.flavor or ""


def _check(process: str, files: Sequence[str], rules: Sequence[_Rule]) -> Iterator[Finding]:
    try:
        conf = config.read(files)
    except ConfigurationError as error:
        yield found(f"{process}: configuration", str(error))
        return
    for rule in rules:
        subject = f"{process}: {rule.option.name} in [{rule.group}]"
        yield found(subject, _problem(conf, rule, files))


def _problem(conf: cfg.ConfigOpts, rule: _Rule, files: Sequence[str]) -> str | None:
    conf.register_opt(rule.option, rule.group)
    if rule.instead is not None:
        conf.register_opt(cfg.StrOpt(rule.instead), rule.group)
        if conf[rule.group][rule.instead]:
            return None
    try:
        value = conf[rule.group][rule.option.name]
    except (cfg.ConfigFileValueError, cfg.TemplateSubstitutionError):
        value = None  # the text of the error shows the value
    return None if rule.is_right(value) else f"{', '.join(files)}: {rule.advice}"
