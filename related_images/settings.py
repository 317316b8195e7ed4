"""The options of the filter: strings of an ini section in, a frozen :class:`Settings` out."""

import configparser
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from paste.deploy.converters import asbool, aslist

from related_images.errors import ConfigurationError

DEFAULT_CONNECTION = "sqlite:///related-images.db"
IN_USE = "in-use"
OSLO_SECTION = "related_images"
OSLO_PROJECT = "oslo_config_project"
OSLO_FILE = "oslo_config_file"
VERIFIED = "verified"


@dataclass(frozen=True)
class Option:
    """One option: its ``default`` as it would be written in an ini file, and what it means."""

    default: str
    convert: Callable[[str], Any]
    meaning: str


@dataclass(frozen=True)
class Settings:
    """What the filter was told. ``database_timeout`` is in seconds; roles are in lower case."""

    connection: str
    recording_roles: frozenset[str]
    admin_roles: frozenset[str]
    require_registered_installation: bool
    guard: str
    nova_rotation: str
    database_timeout: float
    metrics: str


def _roles(text: str) -> frozenset[str]:
    roles = frozenset(role.lower() for role in aslist(text, ",", strip=True) if role)
    if not roles:
        raise ValueError("at least one role is needed, several are separated by commas")
    return roles


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.05 <= seconds <= 60:
        raise ValueError("a number of seconds from 0.05 to 60 is needed")
    return seconds


def _one_of(*allowed: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"this version knows {', '.join(allowed)}")
        return text

    return convert


def _connection(text: str) -> str:
    if "://" not in text:
        raise ValueError("an SQLAlchemy URL is needed, such as mysql+pymysql://user:pw@host/db")
    return text


OPTIONS: dict[str, Option] = {
    "connection": Option(
        DEFAULT_CONNECTION,
        _connection,
        "SQLAlchemy URL of the database: SQLite, MariaDB/MySQL or PostgreSQL",
    ),
    "recording_roles": Option("service", _roles, "roles that may record, separated by commas"),
    "admin_roles": Option("admin", _roles, "roles that see everything and register installations"),
    "require_registered_installation": Option(
        "false", asbool, "refuse tuples of installations that were not registered"
    ),
    "guard": Option(
        "off",
        _one_of("off", IN_USE),
        "in-use: refuse to delete an image that live instances were started from",
    ),
    "nova_rotation": Option(
        "pass",
        _one_of("pass", VERIFIED),
        "whether Nova's own backup rotation sees nothing but the instance's recorded backups",
    ),
    "database_timeout": Option(
        "2.0", _seconds, "seconds before a database that does not answer counts as down"
    ),
    "metrics": Option(
        "off", _one_of("off", "on"), "whether GET /v2/metrics/relations counts for administrators"
    ),
}


def load(section: str, given: Mapping[str, str]) -> Settings:
    """Read ``given``, the options of ``section``, over those of the oslo.config file, if named.

    :raises ConfigurationError: naming the section, the option and what is known
    """
    local = dict(given)
    project, path = local.pop(OSLO_PROJECT, None), local.pop(OSLO_FILE, None)
    values = {name: option.default for name, option in OPTIONS.items()}
    if project or path:
        values |= _known(f"{OSLO_SECTION}] of [{path or project}", _oslo_section(project, path))
    values |= _known(section, local)
    return Settings(**{name: _convert(section, name, values[name]) for name in OPTIONS})


def _known(section: str, given: Mapping[str, str]) -> Mapping[str, str]:
    for name in given:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"[{section}] has an unknown option {name!r}; known are: {', '.join(OPTIONS)}"
            )
    return given


def _convert(section: str, name: str, text: str) -> Any:
    try:
        return OPTIONS[name].convert(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"[{section}] {name} = {text!r} is not valid: {error}") from error


def _oslo_section(project: str | None, path: str | None) -> Mapping[str, str]:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, default_section="oslo.config has none"
    )
    parser.read([path] if path else _oslo_files(str(project)), encoding="utf-8")
    return dict(parser[OSLO_SECTION]) if parser.has_section(OSLO_SECTION) else {}


def _oslo_files(project: str) -> list[str]:
    directory = os.environ.get(f"OS_{project.upper()}_CONFIG_DIR")
    if directory:
        return [os.path.join(directory.strip(), f"{project}-api.conf")]
    from oslo_config import cfg  # only where a service of OpenStack is the host

    return list(cfg.find_config_files(project=project, prog=f"{project}-api"))
