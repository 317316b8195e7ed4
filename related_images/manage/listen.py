"""``listen``: record relations from the notifications of an unmodified Nova."""

import argparse
import logging
import signal
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from related_images import validation
from related_images.errors import ConfigurationError
from related_images.manage import options

if TYPE_CHECKING:
    from related_images.manage.notification_listener import Bus

LOG = logging.getLogger(__name__)

TOPIC: Final = "versioned_notifications"
EXCHANGE: Final = "nova"
DEAD_LETTERS: Final = Path("related-images-dead-letters.jsonl")
_BUS_SECTIONS: Final = ("oslo_messaging_notifications", "DEFAULT")
"""The sections of a configuration file that may have ``transport_url``."""


class Listen(options.DatabaseCommand):
    """Record relations and deletions of servers from the versioned notifications of Nova.

    The command runs until SIGTERM or SIGINT. It records the images made from servers, the images
    that servers are started from, and the deletions of servers. It acknowledges a notification
    after it has stored it. It appends notifications that it cannot parse or store to a file, as
    dead letters. Several listeners can share the work of one bus.

    All users of the machine can see passwords on the command line. To avoid this, give nova.conf,
    which has the URL of the bus, with --config-file. For the database, give Glance's paste file
    with --paste, or a file that has [related_images] with another --config-file.

    Start one listener for each Nova. To start one listener for several Novas, give --installation
    and --transport-url once for each Nova, in the same order.
    """

    exit_codes = "Exit codes: 0 stopped, 1 failed (one line on stderr says why), 2 wrong usage."
    configuration = (
        "configuration file with [related_images], or with transport_url and "
        "[oslo_messaging_rabbit], such as nova.conf; options of queues must be the same as Nova's"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``listen``.

        :param parser: the parser of the command
        """
        parser.add_argument(
            "--installation",
            metavar="UUID",
            type=validation.argument(validation.installation_uuid),
            action="append",
            required=True,
            help="installation (Nova deployment) of the bus; may be repeated",
        )
        parser.add_argument(
            "--transport-url",
            metavar="URL",
            action="append",
            default=[],
            help="URL of the bus for oslo.messaging, rabbit://user:password@host:5672/; may be "
            "repeated (default: transport_url in [oslo_messaging_notifications] or [DEFAULT] of "
            "--config-file)",
        )
        parser.add_argument(
            "--topic",
            default=TOPIC,
            help=f"topic of the notifications; no other program may read it (default: {TOPIC})",
        )
        parser.add_argument(
            "--exchange", default=EXCHANGE, help=f"exchange of Nova (default: {EXCHANGE})"
        )
        parser.add_argument(
            "--dead-letters",
            metavar="FILE",
            type=Path,
            default=DEAD_LETTERS,
            help="file to which dead letters are appended, one JSON object per line "
            f"(default: {DEAD_LETTERS})",
        )
        parser.add_argument(
            "--retry-dead-letters",
            action="store_true",
            help="do not listen; store the dead letters in the file that can be stored now, remove "
            "them from the file, and end their gaps. First stop the listener",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        """Listen until SIGTERM or SIGINT.

        :param args: the parsed arguments
        :raises RelatedImagesError: if a bus, the database or the file cannot be used
        """
        from related_images import config
        from related_images.manage import database_access

        notification_listener = _import_listener()
        if args.retry_dead_letters:
            self._retry(args)
            return
        files = config.files_in(args.config_file, args.config_dir)
        buses = _buses(args, files)
        _require_writable(args.dead_letters)
        with database_access.open_database(args) as database:
            listener = notification_listener.Listener(database, args.dead_letters)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: listener.stopping.set())
            LOG.info("listening to %d bus%s", len(buses), "" if len(buses) == 1 else "es")
            notification_listener.serve(buses, listener, files)
        LOG.info("stopped; %s", _summary(listener.counts))

    def _retry(self, args: argparse.Namespace) -> None:
        from related_images.manage import database_access

        _require_writable(args.dead_letters)
        with database_access.open_database(args) as database:
            listener = _import_listener().Listener(database, args.dead_letters)
            listener.retry()
        LOG.info("done; %s", _summary(listener.counts))


def _import_listener() -> Any:
    """Return the module :mod:`related_images.manage.notification_listener`.

    :raises ConfigurationError: if oslo.messaging is not installed
    """
    try:
        from related_images.manage import notification_listener
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed; run `pip install 'related-images[listen]'`"
        ) from error
    return notification_listener


def _buses(args: argparse.Namespace, files: Sequence[str]) -> "list[Bus]":
    """Return the buses of the command line, or the bus of the configuration files.

    :raises ConfigurationError: if the numbers of installations and buses differ, or there is no bus
    """
    from related_images.manage.notification_listener import Bus

    urls = args.transport_url
    # without a URL, the configuration files set one bus
    if len(args.installation) != (len(urls) or 1):
        raise ConfigurationError(
            f"there are {len(args.installation)} --installation and {len(urls)} --transport-url; "
            "give one of each for each Nova, in the same order"
        )
    if not urls and not _have_bus(files):
        raise ConfigurationError(
            "there is no bus: transport_url is in neither [oslo_messaging_notifications] nor "
            f"[DEFAULT] of {', '.join(files) or 'any file'}; give Nova's nova.conf with "
            "--config-file"
        )
    pairs = zip_longest(args.installation, urls)
    return [Bus(uuid, url, args.topic, args.exchange) for uuid, url in pairs]


def _have_bus(files: Sequence[str]) -> bool:
    """Return True if a file sets a bus; without one, oslo.messaging uses a bus on localhost.

    :raises ConfigurationError: if a file, or ``transport_url`` in it, cannot be read
    """
    from oslo_config import cfg

    from related_images import config

    conf = config.read(files)
    for group in _BUS_SECTIONS:
        conf.register_opt(cfg.StrOpt("transport_url"), group)
    try:
        return any(conf[group].transport_url for group in _BUS_SECTIONS)
    except cfg.Error:
        raise ConfigurationError(
            f"transport_url in one of {', '.join(files)} has a $ that is not followed by the name "
            "of an option; write $$ for each $ of a value"
        ) from None


def _require_writable(path: Path) -> None:
    """Create the file if it does not exist.

    :raises ConfigurationError: if this user cannot append to it
    """
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"dead letters cannot be written to {path}: {error.strerror}; give a file that this "
            "user may write to with --dead-letters"
        ) from error


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())) or "idle"
