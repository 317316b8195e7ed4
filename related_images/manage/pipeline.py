"""The settings of the filter, as they stand in a paste file."""

import configparser
from pathlib import Path
from typing import Final

from paste.deploy.loadwsgi import ConfigLoader

from related_images import config
from related_images.errors import ConfigurationError

_OURS: Final = {
    "use": ("egg:related-images#instance_aware", "egg:related_images#instance_aware"),
    "paste.filter_factory": ("related_images.middleware:filter_factory",),
}


def connection(path: Path) -> str:
    """The database that the filter in this paste file uses.

    :raises ConfigurationError: if the file cannot be read, or does not say so once
    """
    try:
        parser = ConfigLoader(str(path)).parser
        ours = {name: _local(parser, name) for name in parser.sections() if _is_ours(parser[name])}
    except config.UNREADABLE as error:
        raise config.unreadable(path, error) from None
    found = {config.load(name, options).connection for name, options in ours.items()}
    if config.DEFAULT_CONNECTION in found:
        # a file in whatever directory a program is started from: the registry's is another
        raise ConfigurationError(
            f"{path} says nowhere which database the filter uses; write `connection` into the "
            "filter's section, or name the database with --connection"
        )
    if len(found) == 1:
        return found.pop()
    raise ConfigurationError(
        f"{path} names several databases, in {', '.join(ours)}; choose one with --connection"
        if found
        else f"{path} has no filter section with `use = {_OURS['use'][0]}`; "
        "name the paste file of the registry, or the database with --connection"
    )


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
