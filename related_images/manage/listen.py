"""``listen``: what an untouched Nova says of its images, taken from its message bus."""

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
SET_ASIDE: Final = Path("related-images-set-aside.jsonl")
_OF_THE_BUS: Final = ("oslo_messaging_notifications", "DEFAULT")
"""The sections of a configuration file that may name it."""


class Listen(options.OnDatabase):
    """Record what Nova's versioned notifications say: images made, instances started, ended.

    Runs until SIGTERM or SIGINT. Each notification is acknowledged when it is stored; what cannot
    be understood is set aside in a file. Several listeners share the work of one bus.

    Passwords need not be on the command line, where every user of the machine sees them: name the
    nova.conf that has the bus with --config-file, and with --paste the paste file of Glance, or
    with another --config-file a file that has [related_images]. Start one listener for each Nova.
    One listener for several takes --installation and --transport-url once for each, in the same
    order.
    """

    exit_codes = "Exit codes: 0 stopped, 1 failed (one line on stderr says why), 2 wrong usage."
    configuration = (
        "a configuration file with [related_images], or, such as nova.conf, with transport_url and "
        "[oslo_messaging_rabbit]; queues must be declared as Nova declares them"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--installation",
            metavar="UUID",
            type=validation.argument(validation.installation_uuid),
            action="append",
            required=True,
            help="whose bus it is",
        )
        parser.add_argument(
            "--transport-url",
            metavar="URL",
            action="append",
            default=[],
            help="the bus, as oslo.messaging names it: rabbit://user:password@host:5672/ "
            "(default: transport_url in [oslo_messaging_notifications] or [DEFAULT] of "
            "--config-file)",
        )
        parser.add_argument(
            "--topic",
            default=TOPIC,
            help=f"the topic that Nova sends under for us alone (default: {TOPIC})",
        )
        parser.add_argument(
            "--exchange", default=EXCHANGE, help=f"Nova's exchange (default: {EXCHANGE})"
        )
        parser.add_argument(
            "--set-aside",
            metavar="FILE",
            type=Path,
            default=SET_ASIDE,
            help=f"takes what cannot be understood, one JSON object a line (default: {SET_ASIDE})",
        )

    def take_action(self, given: argparse.Namespace) -> None:
        from related_images import config
        from related_images.manage import database_access

        notification_listener = _listening()
        files = config.files_in(given.config_file, given.config_dir)
        buses = _buses(given, files)
        _require_writable(given.set_aside)
        with database_access.open_database(given) as database:
            listener = notification_listener.Listener(database, given.set_aside)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: listener.stopping.set())
            LOG.info("listening to %d bus%s", len(buses), "" if len(buses) == 1 else "es")
            notification_listener.serve(buses, listener, files)
        LOG.info("stopped; %s", _summary(listener.counts))


def _listening() -> Any:
    try:
        from related_images.manage import notification_listener
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed here; `pip install 'related-images[listen]'` brings it"
        ) from error
    return notification_listener


def _buses(given: argparse.Namespace, files: Sequence[str]) -> "list[Bus]":
    """
    :raises ConfigurationError: if installations and buses are not as many, or no bus is named
    """
    from related_images.manage.notification_listener import Bus

    urls = given.transport_url
    # without a URL, what the files of oslo.config say is one bus
    if len(given.installation) != (len(urls) or 1):
        raise ConfigurationError(
            f"{len(given.installation)} times --installation and {len(urls)} times --transport-url "
            "were given; give one of each for each Nova, in the same order"
        )
    if not urls and not _names_bus(files):
        raise ConfigurationError(
            "no bus is named: transport_url is in neither [oslo_messaging_notifications] nor "
            f"[DEFAULT] of {', '.join(files) or 'any file'}; name Nova's nova.conf with "
            "--config-file"
        )
    pairs = zip_longest(given.installation, urls)
    return [Bus(uuid, url, given.topic, given.exchange) for uuid, url in pairs]


def _names_bus(files: Sequence[str]) -> bool:
    """Whether oslo.messaging finds a bus there; it would take one on this machine otherwise.

    :raises ConfigurationError: if a file cannot be read, or a value in it
    """
    from oslo_config import cfg

    from related_images import config

    conf = config.read(files)
    for group in _OF_THE_BUS:
        conf.register_opt(cfg.StrOpt("transport_url"), group)
    try:
        return any(conf[group].transport_url for group in _OF_THE_BUS)
    except cfg.Error:
        raise ConfigurationError(
            f"transport_url in one of {', '.join(files)} has a $ that is not followed by the name "
            "of an option; write $$ for each $ of a value"
        ) from None


def _require_writable(path: Path) -> None:
    """
    :raises ConfigurationError: if nothing can be appended to the file
    """
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"nothing can be set aside in {path}: {error.strerror}; name with --set-aside a file "
            "that this user may write to"
        ) from error


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items())) or "idle"
