"""The options of the filter: oslo.config reads them, a frozen :class:`Settings` holds them.

A value in the paste section wins over the environment, which wins over the configuration files.
"""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg, types

from related_images.errors import ConfigurationError

DEFAULT_CONNECTION: Final = "sqlite:///related-images.db"
IN_USE: Final = "in-use"
VERIFIED: Final = "verified"

GROUP: Final = "related_images"
"""The section of a configuration file."""

OSLO_CONFIG: Final = "oslo_config_config"
OSLO_PROJECT: Final = "oslo_config_project"
OSLO_FILE: Final = "oslo_config_file"

UNREADABLE: Final = (cfg.ParseError, OSError, UnicodeDecodeError)
"""What a configuration file raises that cannot be read."""

_PREFIX: Final = f"OS_{GROUP.upper()}__"
_SECONDS: Final = (0.05, 60.0)


class _Url(types.String):  # type: ignore[misc,unused-ignore]  # older oslo.config has no types
    """A string that may be an SQLAlchemy URL. It holds a password: the error leaves it out."""

    def __call__(self, value: Any) -> str:
        text = str(super().__call__(value))
        if "://" not in text:
            raise ValueError("an SQLAlchemy URL is needed, such as mysql+pymysql://user:pw@host/db")
        return text


class _Roles(types.List):  # type: ignore[misc,unused-ignore]
    """One or more roles, separated by commas, in lower case."""

    def __init__(self) -> None:
        super().__init__(types.String(quotes=True))

    def __call__(self, value: Any) -> list[str]:
        roles = [role.lower() for role in super().__call__(value) if role]
        if not roles:
            raise ValueError("at least one role is needed, several are separated by commas")
        return roles


class _Seconds(types.Float):  # type: ignore[misc,unused-ignore]
    """A number of seconds. The type of oslo.config takes `nan` and nothing at all as well."""

    def __init__(self) -> None:
        super().__init__(*_SECONDS)

    def __call__(self, value: Any) -> float:
        low, high = _SECONDS
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not low <= seconds <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g} is needed")
        return seconds


OPTIONS: Final[dict[str, cfg.Opt]] = {
    option.name: option
    for option in (
        cfg.Opt(
            "connection",
            type=_Url(),
            default=DEFAULT_CONNECTION,
            secret=True,
            help="SQLAlchemy URL of the database: SQLite, MariaDB/MySQL or PostgreSQL. It may be "
            "Glance's own database. Write each $ of a password as $$.",
        ),
        cfg.Opt(
            "recording_roles",
            type=_Roles(),
            default=["service"],
            help="Roles that may record relations, separated by commas.",
        ),
        cfg.Opt(
            "admin_roles",
            type=_Roles(),
            default=["admin"],
            help="Roles that see all relations and register installations, separated by commas.",
        ),
        cfg.BoolOpt(
            "require_registered_installation",
            default=False,
            help="Refuse the instance headers of installations that are not registered.",
        ),
        cfg.StrOpt(
            "guard",
            default="off",
            choices=[
                ("off", "Images are deleted as in a Glance without the filter."),
                (IN_USE, "Refuse to delete an image that live instances were started from."),
            ],
            help="Which images the filter protects from deletion.",
        ),
        cfg.StrOpt(
            "nova_rotation",
            default="pass",
            choices=[
                ("pass", "Nova's backup rotation sees the images that Glance lists."),
                (VERIFIED, "It sees nothing but the recorded, active backups of that server."),
            ],
            help="What Nova's own backup rotation sees when it looks for backups to delete.",
        ),
        cfg.Opt(
            "database_timeout",
            type=_Seconds(),
            default=2.0,
            help="Seconds before a database that does not answer counts as down.",
        ),
    )
}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options, for the programs of oslo.config: entry point group ``oslo.config.opts``."""
    return [(GROUP, list(OPTIONS.values()))]


@dataclass(frozen=True)
class Settings:
    """The options in force. ``database_timeout`` is in seconds; roles are in lower case."""

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
            if not option.secret
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def load(section: str, given: Mapping[str, Any], conf: cfg.ConfigOpts | None = None) -> Settings:
    """Read the options of the paste section over those of the environment and of ``conf``.

    :param given: the options of ``section``. As in keystonemiddleware, ``oslo_config_config`` is
        taken instead of ``conf``, or ``oslo_config_project`` or ``oslo_config_file`` is read
    :param conf: its files are read; without it there are none
    :raises ConfigurationError: naming the section, the option and what is known, or the file that
        cannot be read
    """
    paste = dict(given)
    chosen = _chosen(paste)
    conf = chosen if chosen is not None else conf if conf is not None else read([])
    conf.register_opts(OPTIONS.values(), GROUP)
    below = [*map(_of_file, _files_of(conf)), _of_environment()]
    above = _Source(f"[{section}]", paste)
    for source in (*below, above):
        source.require_known()
    values = {name: _value(conf, name, below) for name in OPTIONS}
    values |= {name: above.converted(name) for name in paste}
    return Settings(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return frozenset(value) if isinstance(value, list) else value


def host() -> cfg.ConfigOpts | None:
    """The configuration that the service of this process has read, such as Glance."""
    # an object of oslo.config that nobody has called yet has no such option
    return cfg.CONF if hasattr(cfg.CONF, "config_file") else None


def read(files: Sequence[str]) -> cfg.ConfigOpts:
    """Read configuration files; a later one wins.

    :raises ConfigurationError: if one cannot be read
    """
    for path in files:
        _sections(path)  # its error shows no value, that of oslo.config shows a whole line
    conf = cfg.ConfigOpts()
    conf([], default_config_files=list(files), default_config_dirs=[])
    return conf


def files_in(files: Iterable[str], directories: Iterable[str]) -> list[str]:
    """The ``files``, then each ``*.conf`` in ``directories``: what oslo.config reads, in its order.

    :raises ConfigurationError: if there is no such directory
    """
    found = list(files)
    for directory in directories:
        if not os.path.isdir(directory):
            raise ConfigurationError(f"{directory} is not a directory; name one with *.conf files")
        found += _snippets(directory)
    return found


def files_of_service(project: str, beside: Path | None = None) -> list[str]:
    """The files that the API service of ``project`` reads, in its order.

    :param beside: a directory in which its first file may be, if no variable names another
    """
    program = f"{project}-api"
    usual = None if beside is None else beside / f"{program}.conf"
    directory = os.environ.get(f"OS_{project.upper()}_CONFIG_DIR")
    if directory:
        files = [os.path.join(directory.strip(), f"{program}.conf")]
    elif usual is not None and usual.exists():
        files = [str(usual)]
    else:
        files = cfg.find_config_files(project=project, prog=program)
    # Glance looks for these in the usual places even where the variable names a directory
    return files_in(files, cfg.find_config_dirs(project=project, prog=program))


def unreadable(path: str | Path, error: Exception) -> ConfigurationError:
    """What to say of a configuration file that raised ``error``, one of :data:`UNREADABLE`.

    The texts of the errors show a line or a value, and with it perhaps a password. Whoever raises
    this leaves out the cause: a traceback would show it.
    """
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    elif isinstance(error, cfg.ParseError):
        reason = f"line {error.lineno}: {error.msg}"
    else:
        reason = " ".join(str(error).split())
    return ConfigurationError(f"{path} cannot be read: {reason}")


@dataclass(frozen=True)
class _Source:
    """A place where options are written, and the text of each."""

    where: str
    texts: Mapping[str, Any] = field(repr=False)

    def require_known(self) -> None:
        for name in self.texts:
            if name not in OPTIONS:
                raise ConfigurationError(
                    f"{self.where} has an unknown option {name!r}; known are: {', '.join(OPTIONS)}"
                )

    def converted(self, name: str) -> Any:
        text = self.texts[name]
        try:
            return OPTIONS[name].type(text.strip() if isinstance(text, str) else text)
        except ValueError as error:
            raise self.not_valid(name, str(error)) from None

    def not_valid(self, name: str, reason: str) -> ConfigurationError:
        hidden = OPTIONS[name].secret or name not in self.texts
        shown = name if hidden else f"{name} = {self.texts[name]!r}"
        return ConfigurationError(f"{self.where} {shown} is not valid: {reason}")


def _chosen(paste: dict[str, Any]) -> cfg.ConfigOpts | None:
    """Take out of the section where else options are, as keystonemiddleware does."""
    given: cfg.ConfigOpts | None = paste.pop(OSLO_CONFIG, None)
    project, path = paste.pop(OSLO_PROJECT, None), paste.pop(OSLO_FILE, None)
    if given is not None:
        return given
    if path is not None:
        if not any(_is_ours(section) for section in _sections(path)):
            raise ConfigurationError(f"{path} has no section [{GROUP}]")
        return read([path])
    if project is None:
        return None
    files = files_of_service(project)
    if not files:
        raise ConfigurationError(
            f"{OSLO_PROJECT} = {project}: there is no {project}-api.conf where oslo.config looks "
            "for it"
        )
    return read(files)


def _value(conf: cfg.ConfigOpts, name: str, sources: Sequence[_Source]) -> Any:
    try:
        return conf[GROUP][name]
    except ValueError as error:
        # oslo.config adds the place to the error of the type, in words that say less than ours
        reason = str(error.__context__ or error)
    except cfg.Error:
        reason = "a $ is not followed by the name of an option; write $$ for each $ of a value"
    named = (source for source in reversed(sources) if name in source.texts)
    source = next(named, _Source(f"[{GROUP}]", {}))
    raise source.not_valid(name, reason)


def _of_environment() -> _Source:
    # oslo.config takes names in capitals alone; others become names that are not known
    texts = {
        name.removeprefix(_PREFIX).swapcase(): text
        for name, text in os.environ.items()
        if name.startswith(_PREFIX)
    }
    return _Source(f"the environment ({_PREFIX}…)", texts)


def _of_file(path: str) -> _Source:
    texts = {
        name: values[-1]
        for section, options in _sections(path).items()
        if _is_ours(section)
        for name, values in options.items()
    }
    return _Source(f"[{GROUP}] of {path}", texts)


def _is_ours(section: str) -> bool:
    return section.lower() == GROUP  # as oslo.config compares names of sections


def _sections(path: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(os.path.expanduser(path), found).parse()
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return found


def _files_of(conf: cfg.ConfigOpts) -> list[str]:
    # these are options of oslo.config itself, which it has only after it has read something
    directories = getattr(conf, "config_dir", None) or ()
    snippets = [path for directory in directories for path in _snippets(directory)]
    return [*(getattr(conf, "config_file", None) or ()), *snippets]


def _snippets(directory: str) -> list[str]:
    return sorted(glob.glob(os.path.join(os.path.expanduser(directory), "*.conf")))
