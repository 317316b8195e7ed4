"""The options of the filter: strings of an ini section in, a frozen :class:`Settings` out."""

import configparser
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paste.deploy.converters import asbool, aslist

from related_images.errors import ConfigurationError

DEFAULT_CONNECTION = "sqlite:///related-images.db"
IN_USE = "in-use"
OSLO_SECTION = "related_images"
OSLO_PROJECT = "oslo_config_project"
OSLO_FILE = "oslo_config_file"
VERIFIED = "verified"


UNREADABLE: Final = (configparser.Error, OSError, UnicodeDecodeError)
"""What a configuration file raises that cannot be read."""


@dataclass(frozen=True)
class Option:
    """One option: its ``default`` as it would be written in an ini file, and what it means.

    What ``is_secret`` is never shown, however wrong it is.
    """

    default: str
    convert: Callable[[str], Any]
    meaning: str
    is_secret: bool = False


@dataclass(frozen=True)
class Settings:
    """What the filter was told. ``database_timeout`` is in seconds; roles are in lower case."""

    connection: str = field(repr=False)
    recording_roles: frozenset[str]
    admin_roles: frozenset[str]
    require_registered_installation: bool
    guard: str
    nova_rotation: str
    database_timeout: float

    def shown(self) -> str:
        """The options as they may stand in a log: without those that hold secrets."""
        return ", ".join(
            f"{name} = {_text(getattr(self, name))}"
            for name, option in OPTIONS.items()
            if not option.is_secret
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(sorted(value)) if isinstance(value, frozenset) else str(value)


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
        is_secret=True,
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
}


def load(section: str, given: Mapping[str, str]) -> Settings:
    """Read ``given``, the options of ``section``, over those of the oslo.config file, if named.

    :raises ConfigurationError: naming the section, the option and what is known, or the file that
        cannot be read
    """
    local = dict(given)
    project, path = local.pop(OSLO_PROJECT, None), local.pop(OSLO_FILE, None)
    values = {name: option.convert(option.default) for name, option in OPTIONS.items()}
    if path is not None:
        values |= _converted(f"[{OSLO_SECTION}] of {path}", _of_file(path))
    elif project is not None:
        where = f"[{OSLO_SECTION}] in the configuration of {project}"
        values |= _converted(where, _oslo_section(_oslo_files(project)) or {})
    values |= _converted(f"[{section}]", local)
    return Settings(**values)


def _converted(where: str, given: Mapping[str, str]) -> dict[str, Any]:
    for name in given:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"{where} has an unknown option {name!r}; known are: {', '.join(OPTIONS)}"
            )
    return {name: _convert(where, name, text) for name, text in given.items()}


def _convert(where: str, name: str, text: str) -> Any:
    option = OPTIONS[name]
    try:
        return option.convert(text.strip())
    except ValueError as error:
        shown = name if option.is_secret else f"{name} = {text!r}"
        raise ConfigurationError(f"{where} {shown} is not valid: {error}") from error


def _of_file(path: str) -> Mapping[str, str]:
    found = _oslo_section([path])
    if found is None:
        raise ConfigurationError(f"{path} has no section [{OSLO_SECTION}]")
    return found


def _oslo_section(paths: Iterable[str]) -> Mapping[str, str] | None:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, default_section="oslo.config has none"
    )
    for path in paths:
        _read(parser, path)
    return dict(parser[OSLO_SECTION]) if parser.has_section(OSLO_SECTION) else None


def unreadable(path: str | Path, error: Exception) -> ConfigurationError:
    """What to say of a configuration file that raised ``error``, one of :data:`UNREADABLE`.

    The texts of the errors show a line or a value, and with it perhaps a password. Whoever raises
    this leaves out the cause: a traceback would show it.
    """
    return ConfigurationError(f"{path} cannot be read: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, configparser.ParsingError):
        number = getattr(error, "lineno", None) or error.errors[0][0]
        return f"line {number} is neither a section nor an option"
    if isinstance(error, configparser.InterpolationError):
        return (
            f"the option {error.option} of [{error.section}] has a % that is not the beginning of "
            "%(name)s with the name of an option; write %% for each % of a value in a paste file, "
            "or put the option into glance-api.conf, where a % stays as it is"
        )
    return " ".join(str(error).split())


def _read(parser: configparser.ConfigParser, path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file, path)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def _oslo_files(project: str) -> list[str]:
    """The files that the API service of ``project`` reads, in its order."""
    from oslo_config import cfg  # only where a service of OpenStack is the host

    program = f"{project}-api"
    directory = os.environ.get(f"OS_{project.upper()}_CONFIG_DIR")
    if directory:
        files = [os.path.join(directory.strip(), f"{program}.conf")]
    else:
        files = cfg.find_config_files(project=project, prog=program)
    if not files:
        raise ConfigurationError(
            f"{OSLO_PROJECT} = {project}: there is no {program}.conf where oslo.config looks for it"
        )
    # Glance looks for these in the usual places even where the variable names a directory
    snippets = cfg.find_config_dirs(project=project, prog=program)
    return files + [str(path) for found in snippets for path in sorted(Path(found).glob("*.conf"))]
