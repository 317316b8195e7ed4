"""``listen``: record relations from the notifications of an unmodified Nova and Cinder."""

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
from related_images.model import CINDER_BUS, NOVA_BUS

if TYPE_CHECKING:
    from related_images.manage.notification_listener import Bus
    from related_images.manage.notification_parser import Reader

LOG = logging.getLogger(__name__)

TOPIC: Final = "versioned_notifications"
EXCHANGE: Final = "nova"
CINDER_TOPIC: Final = "cinder_notifications"
CINDER_EXCHANGE: Final = "openstack"
DEAD_LETTERS: Final = Path("related-images-dead-letters.jsonl")
REMAINING: Final = 3
"""Exit code if a retry could not store all dead letters."""

_BUS_SECTIONS: Final = ("oslo_messaging_notifications", "DEFAULT")
"""The sections of a configuration file that may have ``transport_url``."""


class Listen(options.DatabaseCommand):
    """Record relations from the versioned notifications of Nova and the notifications of Cinder.

    The command runs until SIGTERM or SIGINT. It records the images made from servers, the images
    and root volumes that servers are started from, the volume snapshots that volumes are made from,
    transfers of volumes, and deletions of servers and volumes. It acknowledges a notification after
    it has stored it. If it cannot parse or store a notification, it writes the notification to a
    file, as a dead letter. Several listeners can share the work of one bus.

    All users of the machine can see passwords on the command line. To avoid this, put the passwords
    into files. For the bus, use --config-file and nova.conf, which has the URL of the bus. For the
    database, use --paste and the paste file of Glance, or a second --config-file and a file that
    has [related_images]. Start one listener for each Nova. For one listener for several Novas, give
    --installation and --transport-url once for each, in the same order. --cinder-installation names
    the Cinder that has the root volumes of the servers.
    """

    exit_codes = (
        "Exit codes: 0 stopped or done, 1 failed (one line on stderr says why), 2 wrong usage, "
        f"{REMAINING} dead letters remain in the file after --retry-dead-letters."
    )
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
            default=[],
            help="installation (Nova deployment) of the bus; may be repeated; necessary unless "
            "--cinder-installation is given",
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
        _add_cinder_arguments(parser)
        _add_dead_letter_arguments(parser)

    def take_action(self, args: argparse.Namespace) -> int:
        """Listen until SIGTERM or SIGINT, or retry the dead letters.

        :param args: the parsed arguments
        :returns: the exit code, :data:`REMAINING` if a retry left dead letters
        :raises RelatedImagesError: if a bus, the database or the file cannot be used
        """
        from related_images import config
        from related_images.manage import database_access

        notification_listener = _import_listener()
        if args.retry_dead_letters:
            return self._retry(args)
        files = config.files_in(args.config_file, args.config_dir)
        buses = _buses(args, files)
        _require_writable(args.dead_letters)
        with database_access.open_database(args) as database:
            listener = notification_listener.Listener(database, args.dead_letters)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: listener.stopping.set())
            LOG.info("connecting to %d bus%s", len(buses), "" if len(buses) == 1 else "es")
            notification_listener.serve(buses, listener, files)
        LOG.info("stopped; %s", _summary(listener.counts))
        return 0

    def _retry(self, args: argparse.Namespace) -> int:
        from related_images.manage import database_access

        if args.dead_letters.is_symlink():
            raise ConfigurationError(
                f"{args.dead_letters} is a symbolic link; give the file itself with --dead-letters"
            )
        with database_access.open_database(args) as database:
            listener = _import_listener().Listener(database, args.dead_letters)
            remaining = 0
            if args.dead_letters.exists():
                _require_writable(args.dead_letters)
                remaining = listener.retry(_readers(args))
        LOG.info("done; %s", _summary(listener.counts))
        return REMAINING if remaining else 0


def _add_cinder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cinder-installation",
        metavar="UUID",
        type=validation.argument(validation.installation_uuid),
        help="installation (Cinder deployment) whose notifications are read as well; root "
        "volumes in the notifications of Nova are volumes of this Cinder",
    )
    parser.add_argument(
        "--cinder-transport-url",
        metavar="URL",
        help="URL of the bus of Cinder (default: transport_url of --config-file, as for Nova)",
    )
    parser.add_argument(
        "--cinder-topic",
        metavar="TOPIC",
        default=CINDER_TOPIC,
        help="topic of Cinder's notifications; no other program may read it "
        f"(default: {CINDER_TOPIC})",
    )
    parser.add_argument(
        "--cinder-exchange",
        metavar="EXCHANGE",
        default=CINDER_EXCHANGE,
        help=f"exchange of Cinder (default: {CINDER_EXCHANGE})",
    )


def _add_dead_letter_arguments(parser: argparse.ArgumentParser) -> None:
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
        help="do not listen; read the dead letters from the file, and store those that can be "
        "stored now. Each stored dead letter is removed from the file, and its gap ends. First "
        "stop the listener",
    )


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

    :raises ConfigurationError: if the numbers of installations and buses differ, or a bus or every
        installation is missing
    """
    from related_images.manage.notification_listener import Bus

    urls, cinder = args.transport_url, args.cinder_installation
    if not args.installation and cinder is None:
        raise ConfigurationError(
            "there is no installation; give the one of Nova with --installation, the one of Cinder "
            "with --cinder-installation, or both"
        )
    if cinder is None and args.cinder_transport_url is not None:
        raise ConfigurationError("--cinder-transport-url needs --cinder-installation")
    # without a URL, the configuration files set the bus of one Nova
    if len(args.installation) != len(urls) and (urls or len(args.installation) > 1):
        raise ConfigurationError(
            f"there are {len(args.installation)} --installation and {len(urls)} --transport-url; "
            "give one of each for each Nova, in the same order"
        )
    readers = _readers(args)
    buses = [
        Bus(uuid, url, args.topic, args.exchange, readers[NOVA_BUS], NOVA_BUS)
        for uuid, url in zip_longest(args.installation, urls)
    ]
    if cinder is not None:
        where = args.cinder_transport_url, args.cinder_topic, args.cinder_exchange
        buses.append(Bus(cinder, *where, readers[CINDER_BUS], CINDER_BUS))
    if any(bus.url is None for bus in buses) and not _have_bus(files):
        raise ConfigurationError(
            "there is no bus: transport_url is in neither [oslo_messaging_notifications] nor "
            f"[DEFAULT] of {', '.join(files) or 'any file'}; give Nova's nova.conf with "
            "--config-file"
        )
    return buses


def _readers(args: argparse.Namespace) -> "dict[str, Reader]":
    """Return what reads the notifications, by witness."""
    from related_images.manage import cinder_notifications, notification_parser

    nova = notification_parser.nova_reader(args.cinder_installation)
    return {NOVA_BUS: nova, CINDER_BUS: cinder_notifications.read}


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
    from related_images.manage.notification_listener import open_private

    try:
        open_private(path, "a").close()
    except OSError as error:
        raise ConfigurationError(
            f"dead letters cannot be written to {path}: {error.strerror}; give a file that this "
            "user may write to with --dead-letters"
        ) from error


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())) or "idle"
