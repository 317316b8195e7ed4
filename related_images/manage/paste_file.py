"""The options of the filter whose section is in a paste file."""

import configparser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paste.deploy.loadwsgi import ConfigLoader

from related_images import config
from related_images.errors import ConfigurationError

_OURS: Final = {
    "use": ("egg:related-images#instance_aware", "egg:related_images#instance_aware"),
    "paste.filter_factory": ("related_images.middleware:filter_factory",),
}


_UNREADABLE: Final = (configparser.Error, *config.UNREADABLE)
"""What a paste file raises that cannot be read."""


def connection(path: Path, files: Sequence[str]) -> str:
    """The database that the filter in this paste file uses.

    Below the section of the filter are the environment, ``files``, and the configuration of Glance.

    :raises ConfigurationError: if a file cannot be read, or the database is not named once
    """
    try:
        parser = ConfigLoader(str(path)).parser
        ours = {name: _local(parser, name) for name in parser.sections() if _is_ours(parser[name])}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if not ours:
        raise ConfigurationError(
            f"{path} has no filter section with `use = {_OURS['use'][0]}`; "
            "name the paste file of Glance, or the database with --connection"
        )
    conf = config.read([*config.files_of_service("glance", path.parent), *files])
    found = {config.load(name, options, conf).connection for name, options in ours.items()}
    if config.DEFAULT_CONNECTION in found:
        # a file in whatever directory a program is started from: the one of Glance is another
        raise ConfigurationError(
            f"neither {path} nor the configuration of Glance names the database of the filter; "
            f"write `connection` into [{config.GROUP}] of glance-api.conf, or name the database "
            "with --connection"
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"{path} names several databases, in {', '.join(ours)}; choose one with --connection"
        )
    return found.pop()


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    """As :func:`config.unreadable`: the texts of these errors show values as well."""
    if isinstance(error, configparser.ParsingError):
        number = getattr(error, "lineno", None) or error.errors[0][0]
        reason = f"line {number} is neither a section nor an option"
    elif isinstance(error, configparser.InterpolationError):
        reason = (
            f"the option {error.option} of [{error.section}] has a % that is not the beginning of "
            "%(name)s with the name of an option; write %% for each % of a value in a paste file, "
            "or put the option into glance-api.conf, where a % stays as it is"
        )
    elif isinstance(error, configparser.Error):
        reason = " ".join(str(error).split())
    else:
        return config.unreadable(path, error)
    return ConfigurationError(f"{path} cannot be read: {reason}")


def _is_ours(section: configparser.SectionProxy) -> bool:
    return any(section.get(option) in values for option, values in _OURS.items())


def _local(parser: configparser.ConfigParser, name: str) -> dict[str, str]:
    """What the filter is given: the options of its section that do not merely repeat a default."""
    defaults = parser.defaults()
    return {
        option: value
        for option, value in parser.items(name)
        if option not in _OURS and defaults.get(option) != value
    }
