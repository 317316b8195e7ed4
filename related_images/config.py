"""The options of the filter, read by oslo.config.

A value in the paste section takes precedence over the environment, and the environment over the
configuration files.
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

LEASE: Final = "lease"
SHELVED: Final = "shelved"
GUARD_COUNTS: Final = ("server", "volume", LEASE, SHELVED)
"""The uses of an image that delete protection can count."""
DELETE: Final = "delete"
DEACTIVATE: Final = "deactivate"
GUARD_ACTIONS: Final = (DELETE, DEACTIVATE)
"""The actions on an image in use that delete protection can refuse."""

GROUP: Final = "related_images"
"""The section of the configuration files."""

OSLO_CONFIG: Final = "oslo_config_config"
OSLO_PROJECT: Final = "oslo_config_project"
OSLO_FILE: Final = "oslo_config_file"

UNREADABLE: Final = (cfg.ParseError, OSError, UnicodeDecodeError)
"""The errors of reading a configuration file."""

_PREFIX: Final = f"OS_{GROUP.upper()}__"
_SECONDS: Final = (0.05, 60.0)


class _Url(types.String):  # type: ignore[misc,unused-ignore]  # older oslo.config has no types
    """An SQLAlchemy URL. The error message does not contain the value, which has a password."""

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
            raise ValueError("at least one role is needed; separate several with commas")
        return roles


class _Words(types.List):  # type: ignore[misc,unused-ignore]
    """One or more of the given words, separated by commas."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = ", ".join(words)
        super().__init__(types.String(choices=self.words.split(", ")))

    def __call__(self, value: Any) -> list[str]:
        words: list[str] = super().__call__(value)
        if not words:
            raise ValueError(
                f"at least one of {self.words} is needed; separate several with commas"
            )
        return words


class _Path(types.String):  # type: ignore[misc,unused-ignore]
    """An absolute path, or nothing. The working directory of a service is seldom known."""

    def __call__(self, value: Any) -> str:
        text = str(super().__call__(value)).strip()
        if text and not os.path.isabs(text):
            raise ValueError("an absolute path is needed")
        return text


class _Seconds(types.Float):  # type: ignore[misc,unused-ignore]
    """A number of seconds. ``types.Float`` also accepts ``nan`` and an empty value."""

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
            help="Roles that may record and remove relations, separated by commas.",
        ),
        cfg.Opt(
            "admin_roles",
            type=_Roles(),
            default=["admin"],
            help="Roles that see the relations of all projects, remove relations and register "
            "installations, separated by commas.",
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
                ("off", "No images. Glance deletes images as it does without the filter."),
                (IN_USE, "An image that live resources use cannot be deleted."),
            ],
            help="Delete protection: which images cannot be deleted.",
        ),
        cfg.Opt(
            "guard_counts",
            type=_Words(GUARD_COUNTS),
            default=list(GUARD_COUNTS),
            help="Which live resources count as a use of an image, separated by commas. server: "
            "servers; volume: volumes, volume snapshots and volume backups; lease: resources with "
            "a lease of the image; shelved: shelved servers whose data is in the image.",
        ),
        cfg.Opt(
            "guard_actions",
            type=_Words(GUARD_ACTIONS),
            default=[DELETE],
            help="Which actions on an image in use are refused, separated by commas: delete, "
            "deactivate. An administrator may always deactivate an image.",
        ),
        cfg.StrOpt(
            "nova_rotation",
            default="pass",
            choices=[
                ("pass", "The images that Glance lists."),
                (VERIFIED, "Only the recorded, active backups of the server."),
            ],
            help="Which images Nova's own backup rotation gets when it lists the backups of a "
            "server. It deletes the oldest of them.",
        ),
        cfg.Opt(
            "policy_file",
            type=_Path(),
            default="",
            help="Absolute path of a policy file of oslo.policy, with rules that replace the "
            "defaults. The defaults follow from recording_roles and admin_roles. The service "
            "reads the file again when it changes.",
        ),
        cfg.Opt(
            "database_timeout",
            type=_Seconds(),
            default=2.0,
            help="Seconds to wait for the database before it counts as unavailable, 0.05 to 60.",
        ),
    )
}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options for oslo-config-generator: entry point group ``oslo.config.opts``."""
    return [(GROUP, list(OPTIONS.values()))]


@dataclass(frozen=True)
class Settings:
    """The values of the options. ``database_timeout`` is in seconds; roles are in lower case."""

    connection: str = field(repr=False)
    recording_roles: frozenset[str]
    admin_roles: frozenset[str]
    require_registered_installation: bool
    guard: str
    guard_counts: frozenset[str]
    guard_actions: frozenset[str]
    nova_rotation: str
    policy_file: str
    database_timeout: float

    def guards(self, action: str) -> bool:
        """Return whether an action, one of :data:`GUARD_ACTIONS`, on an image in use is refused."""
        return self.guard == IN_USE and action in self.guard_actions

    def shown(self) -> str:
        """Return the options for a log line, without those that hold secrets."""
        return ", ".join(
            f"{name} = {_text(getattr(self, name))}"
            for name, option in OPTIONS.items()
            if not option.secret
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def load(section: str, options: Mapping[str, Any], conf: cfg.ConfigOpts | None = None) -> Settings:
    """Read the options of the paste section, of the environment and of the configuration files.

    :param section: the name of the paste section, for error messages
    :param options: the options of the paste section. As in keystonemiddleware, one of
        ``oslo_config_config`` (an object), ``oslo_config_project`` and ``oslo_config_file``
        replaces ``conf``
    :param conf: the configuration whose files are read; ``None`` for no files
    :raises ConfigurationError: if an option is unknown or invalid, or a file cannot be read; the
        message names the section and the option, or the file
    """
    paste = dict(options)
    replacement = _pop_oslo_config(paste)
    conf = replacement if replacement is not None else conf if conf is not None else read([])
    conf.register_opts(OPTIONS.values(), GROUP)
    fallbacks = [*map(_file_source, _files_of(conf)), _environment_source()]
    paste_source = _Source(f"[{section}]", paste)
    for source in (*fallbacks, paste_source):
        source.require_known()
    values = {name: _value(conf, name, fallbacks) for name in OPTIONS}
    values |= {name: paste_source.converted(name) for name in paste}
    return Settings(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return frozenset(value) if isinstance(value, list) else value


def host() -> cfg.ConfigOpts | None:
    """Return the configuration that the service of this process has read, such as Glance's."""
    # before ConfigOpts is called, it does not have this option
    return cfg.CONF if hasattr(cfg.CONF, "config_file") else None


def read(files: Sequence[str]) -> cfg.ConfigOpts:
    """Read configuration files; a value in a later file takes precedence.

    :raises ConfigurationError: if one cannot be read
    """
    for path in files:
        _sections(path)  # the error of oslo.config would show a whole line of the file
    conf = cfg.ConfigOpts()
    conf([], default_config_files=list(files), default_config_dirs=[])
    return conf


def files_in(files: Iterable[str], directories: Iterable[str]) -> list[str]:
    """Return ``files`` and each ``*.conf`` in ``directories``, in the order of oslo.config.

    :raises ConfigurationError: if one of ``directories`` is not a directory
    """
    found = list(files)
    for directory in directories:
        if not os.path.isdir(directory):
            raise ConfigurationError(
                f"{directory} is not a directory; name a directory with *.conf files"
            )
        found += _snippets(directory)
    return found


def files_of_service(project: str, beside: Path | None = None) -> list[str]:
    """Return the configuration files that the API service of ``project`` reads, in its order.

    :param beside: a directory to look in for the first file, unless the environment variable
        ``OS_{PROJECT}_CONFIG_DIR`` names another
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
    # Glance reads these from the default directories even if the variable is set
    return files_in(files, cfg.find_config_dirs(project=project, prog=program))


def unreadable(path: str | Path, error: Exception) -> ConfigurationError:
    """Return the error for a configuration file that raised ``error``, one of :data:`UNREADABLE`.

    The text of ``error`` may show a line of the file, and with it a password. Raise the result
    ``from None``: a traceback of the cause would show the text.
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
    """A source of options: its description for messages, and the text of each option."""

    where: str
    texts: Mapping[str, Any] = field(repr=False)

    def require_known(self) -> None:
        for name in self.texts:
            if name not in OPTIONS:
                raise ConfigurationError(
                    f"{self.where} has an unknown option {name!r}; allowed are: "
                    f"{', '.join(OPTIONS)}"
                )

    def converted(self, name: str) -> Any:
        text = self.texts[name]
        try:
            return OPTIONS[name].type(text.strip() if isinstance(text, str) else text)
        except ValueError as error:
            raise self.not_valid(name, str(error)) from None

    def not_valid(self, name: str, reason: str) -> ConfigurationError:
        is_hidden = OPTIONS[name].secret or name not in self.texts
        shown = name if is_hidden else f"{name} = {self.texts[name]!r}"
        return ConfigurationError(f"{self.where} {shown} is not valid: {reason}")


def _pop_oslo_config(paste: dict[str, Any]) -> cfg.ConfigOpts | None:
    """Remove the ``oslo_config_…`` options of keystonemiddleware, and return what they name."""
    conf: cfg.ConfigOpts | None = paste.pop(OSLO_CONFIG, None)
    project, path = paste.pop(OSLO_PROJECT, None), paste.pop(OSLO_FILE, None)
    if conf is not None:
        return conf
    if path is not None:
        if not any(_is_own_section(section) for section in _sections(path)):
            raise ConfigurationError(
                f"{path} has no section [{GROUP}]; add it, or name another file"
            )
        return read([path])
    if project is None:
        return None
    files = files_of_service(project)
    if not files:
        raise ConfigurationError(
            f"{OSLO_PROJECT} = {project}: oslo.config finds no {project}-api.conf in its default "
            "directories; create it, or name a file with oslo_config_file"
        )
    return read(files)


def _value(conf: cfg.ConfigOpts, name: str, sources: Sequence[_Source]) -> Any:
    try:
        return conf[GROUP][name]
    except ValueError as error:
        # the error of the type itself: oslo.config wraps it in a message without the file
        reason = str(error.__context__ or error)
    except cfg.Error:
        reason = "a $ is not followed by the name of an option; write $$ for each $ of a value"
    in_sources = (source for source in reversed(sources) if name in source.texts)
    source = next(in_sources, _Source(f"[{GROUP}]", {}))
    raise source.not_valid(name, reason)


def _environment_source() -> _Source:
    # oslo.config reads upper-case names only; swapcase() makes other names unknown options
    texts = {
        name.removeprefix(_PREFIX).swapcase(): text
        for name, text in os.environ.items()
        if name.startswith(_PREFIX)
    }
    return _Source(f"the environment ({_PREFIX}…)", texts)


def _file_source(path: str) -> _Source:
    texts = {
        name: values[-1]
        for section, options in _sections(path).items()
        if _is_own_section(section)
        for name, values in options.items()
    }
    return _Source(f"[{GROUP}] of {path}", texts)


def _is_own_section(section: str) -> bool:
    return section.lower() == GROUP  # oslo.config ignores the case of section names


def _sections(path: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(os.path.expanduser(path), found).parse()
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return found


def _files_of(conf: cfg.ConfigOpts) -> list[str]:
    # oslo.config has these options only after it was called
    directories = getattr(conf, "config_dir", None) or ()
    snippets = [path for directory in directories for path in _snippets(directory)]
    return [*(getattr(conf, "config_file", None) or ()), *snippets]


def _snippets(directory: str) -> list[str]:
    return sorted(glob.glob(os.path.join(os.path.expanduser(directory), "*.conf")))
