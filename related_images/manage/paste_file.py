"""Read the options of the filter from the paste file of Glance."""

import configparser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paste.deploy.loadwsgi import ConfigLoader

from related_images import config
from related_images.config import Settings
from related_images.errors import ConfigurationError

FILTER: Final = {
    "use": ("egg:related-images#instance_aware", "egg:related_images#instance_aware"),
    "paste.filter_factory": ("related_images.middleware:filter_factory",),
}
"""The options, and their values, that identify the section of the filter."""

_UNREADABLE: Final = (configparser.Error, *config.UNREADABLE)
"""The errors of a paste file that cannot be read."""


def connection(path: Path, files: Sequence[str]) -> str:
    """Return the database URL of the filter in a paste file.

    The section of the filter has precedence over the environment, which has precedence over
    ``files`` and the configuration of Glance.

    :param path: the paste file
    :param files: configuration files of oslo.config, the last one with the highest precedence
    :raises ConfigurationError: if a file cannot be read, or if there is no database or several
    """
    sections = settings(path, files)
    if not sections:
        raise ConfigurationError(
            f"{path} has no filter section with `use = {FILTER['use'][0]}`; "
            "use the paste file of Glance, or set the database with --connection"
        )
    urls = {one.connection for one in sections.values()}
    if config.DEFAULT_CONNECTION in urls:
        # the default is relative to the working directory, which differs from that of Glance
        raise ConfigurationError(
            f"neither {path} nor the configuration of Glance sets the database of the filter; "
            f"set `connection` in [{config.GROUP}] of glance-api.conf, or use --connection"
        )
    if len(urls) > 1:
        raise ConfigurationError(
            f"{path} sets several databases, in {', '.join(sections)}; choose one with --connection"
        )
    return urls.pop()


def settings(path: Path, files: Sequence[str]) -> dict[str, Settings]:
    """Return the options of the filter by its sections in a paste file.

    :param path: the paste file
    :param files: as for :func:`connection`
    :raises ConfigurationError: if a file cannot be read, or if an option is unknown or invalid
    """
    parser = read(path)
    conf = config.read([*config.files_of_service("glance", path.parent), *files])
    return {
        name: config.load(name, _local(parser, name), conf)
        for name in parser.sections()
        if _is_filter(parser[name])
    }


def read(path: Path) -> configparser.ConfigParser:
    """Return the sections of a paste file, with each value that it refers to.

    :raises ConfigurationError: if the file cannot be read
    """
    try:
        parser: configparser.ConfigParser = ConfigLoader(str(path)).parser
        for name in parser.sections():
            parser.items(name)  # now, so that an error of a value is found here
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    return parser


def _is_filter(section: configparser.SectionProxy) -> bool:
    """Return whether a section of a paste file defines the filter for Glance."""
    return any(section.get(option) in values for option, values in FILTER.items())


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    """Return an error without values, as :func:`config.unreadable` does: they may be secret."""
    if isinstance(error, configparser.ParsingError):
        number = getattr(error, "lineno", None) or error.errors[0][0]
        reason = f"line {number} is neither a section nor an option"
    elif isinstance(error, configparser.InterpolationError):
        reason = (
            f"the option {error.option} of [{error.section}] has a % that does not begin %(name)s "
            "with the name of an option; write %% for each % of a value in a paste file, or move "
            "the option to glance-api.conf, where % needs no escape"
        )
    elif isinstance(error, configparser.Error):
        reason = " ".join(str(error).split())
    else:
        return config.unreadable(path, error)
    return ConfigurationError(f"{path} cannot be read: {reason}")


def _local(parser: configparser.ConfigParser, name: str) -> dict[str, str]:
    """Return the options that PasteDeploy passes to the filter, without those of [DEFAULT]."""
    defaults = parser.defaults()
    return {
        option: value
        for option, value in parser.items(name)
        if option not in FILTER and defaults.get(option) != value
    }
