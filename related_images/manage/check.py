"""``check``: find the faults in the configuration of a deployment."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cliff.lister import Lister

from related_images import errors
from related_images.manage import listen, options
from related_images.manage.findings import NOT_CHECKED, WRONG, Finding, found

if TYPE_CHECKING:
    from related_images.config import Settings
    from related_images.manage.pipeline_checks import Service

LOG = logging.getLogger(__name__)

FAULTY: Final = 3
"""Exit code if something is wrong."""

NOVA_PROCESSES: Final = ("nova-api", "nova-conductor", "nova-compute")


class Check(options.DatabaseCommand, Lister):
    """Find the faults in the configuration of Glance, Nova, Cinder, uWSGI and the database.

    The command reads the files that are given, and changes nothing. For a file that is not given,
    the output says `not checked`. Give the files of each service as the service reads them: copy
    them from its host if necessary. For Glance, give its paste file with --paste, and the files
    with [related_images], [keystone_authtoken] and [paste_deploy] with --config-file.
    """

    exit_codes = (
        "Exit codes: 0 nothing is wrong in what was checked, 1 the command failed (one line on "
        f"stderr says why), 2 wrong usage, {FAULTY} something is wrong."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``check``.

        :param parser: the parser of the command
        """
        files = parser.add_argument_group("files of other services")
        for name in ("nova-api", "cinder-api"):
            files.add_argument(
                f"--{name}-paste", metavar="FILE", type=Path, help=f"paste file of {name}"
            )
        for name in (*NOVA_PROCESSES, "cinder"):
            files.add_argument(
                f"--{name}-config",
                metavar="FILE",
                action="append",
                default=[],
                help=f"configuration file of {name}; may be repeated, a later one takes precedence",
            )
        files.add_argument(
            "--uwsgi",
            metavar="FILE",
            type=Path,
            action="append",
            default=[],
            help="file with the options of uWSGI for Glance, Nova or Cinder; may be repeated",
        )
        for service, option, topic in (
            ("Nova", "--topic", listen.TOPIC),
            ("Cinder", "--cinder-topic", listen.CINDER_TOPIC),
        ):
            files.add_argument(
                option,
                default=topic,
                help=f"topic of {service}'s notifications that `related-images listen` reads "
                f"(default: {topic})",
            )

    def take_action(self, args: argparse.Namespace) -> tuple[Any, Any]:
        """Return the findings as cliff shows them.

        :param args: the parsed arguments
        :returns: names of the columns, and the rows
        :raises RelatedImagesError: if a directory of configuration files is missing
        """
        self.findings = [*_glance(args), *_nova(args), *_cinder(args), *_uwsgi(args)]
        self.findings += _database(args)
        rows = [(one.subject, one.result, one.advice) for one in self.findings]
        return ("check", "result", "next_step"), rows

    def run(self, args: argparse.Namespace) -> int:
        """Run the checks.

        :param args: the parsed arguments
        :returns: the exit code, :data:`FAULTY` if something is wrong
        """
        failed: int = super().run(args)
        is_wrong = not failed and any(one.result == WRONG for one in self.findings)
        return FAULTY if is_wrong else failed


def _glance(args: argparse.Namespace) -> Iterator[Finding]:
    from related_images import config
    from related_images.manage import option_checks, pipeline_checks

    files = config.files_in(args.config_file, args.config_dir)
    if args.paste is not None and not files:
        files = config.files_of_service("glance", args.paste.parent)
    flavor = None
    subject = "Glance: configuration"
    try:
        if files:
            flavor = option_checks.flavor(files)
            sections = _sections(args, files)
            yield from option_checks.glance(files, sections[0].recording_roles)
            yield from _policies(sections)
        else:
            yield _not_checked(subject, "--config-file")
    except errors.ConfigurationError as error:
        yield found(subject, str(error))
    if args.paste is None:
        yield _not_checked("Glance: pipeline", "--paste")
    else:
        yield from pipeline_checks.check(pipeline_checks.GLANCE, args.paste, flavor)


def _sections(args: argparse.Namespace, files: Sequence[str]) -> list["Settings"]:
    """Return the options of each section of the filter, or those of the files alone."""
    from related_images import config
    from related_images.manage import paste_file

    sections = paste_file.settings(args.paste, files) if args.paste is not None else {}
    return list(sections.values()) or [config.load("command line", {}, config.read(files))]


def _policies(sections: Sequence["Settings"]) -> Iterator[Finding]:
    """Read the policy files as the filter does."""
    from related_images.middleware import policy

    for settings in {one.policy_file: one for one in sections if one.policy_file}.values():
        try:
            policy.Policy(settings)
            problem = None
        except errors.ConfigurationError as error:
            problem = str(error)
        yield found("Glance: policy_file in [related_images]", problem)


def _nova(args: argparse.Namespace) -> Iterator[Finding]:
    from related_images.manage import option_checks, pipeline_checks

    yield from _pipelines(pipeline_checks.NOVA_API, args.nova_api_paste)
    for process in NOVA_PROCESSES:
        option = f"--{process}-config"
        files = getattr(args, option.strip("-").replace("-", "_"))
        if files:
            yield from option_checks.nova(process, files, args.topic)
        else:
            yield _not_checked(f"{process}: configuration", option)


def _cinder(args: argparse.Namespace) -> Iterator[Finding]:
    from related_images.manage import option_checks, pipeline_checks

    yield from _pipelines(pipeline_checks.CINDER_API, args.cinder_api_paste)
    if args.cinder_config:
        yield from option_checks.cinder(args.cinder_config, args.cinder_topic)
    else:
        yield _not_checked("cinder: configuration", "--cinder-config")


def _pipelines(service: "Service", path: Path | None) -> Iterator[Finding]:
    from related_images.manage import pipeline_checks

    if path is None:
        yield _not_checked(f"{service.name}: pipeline", f"--{service.name}-paste")
    else:
        yield from pipeline_checks.check(service, path)


def _uwsgi(args: argparse.Namespace) -> Iterator[Finding]:
    from related_images.manage import uwsgi_checks

    for path in args.uwsgi:
        yield from uwsgi_checks.check(path)
    if not args.uwsgi:
        yield _not_checked("uWSGI", "--uwsgi")


def _database(args: argparse.Namespace) -> Iterator[Finding]:
    from related_images.manage import database_access, pipeline_checks, state_checks

    subject = "database"
    if args.connection is None and args.paste is None and not (args.config_file or args.config_dir):
        yield _not_checked(subject, "--connection, --paste or --config-file")
        return
    uuids = list[str]()
    for service, path in (
        (pipeline_checks.NOVA_API, args.nova_api_paste),
        (pipeline_checks.CINDER_API, args.cinder_api_paste),
    ):
        uuids += pipeline_checks.installations(service, path) if path is not None else ()
    try:
        with database_access.connected(args) as connection:
            yield from state_checks.check(connection, uuids)
    except (errors.ConfigurationError, errors.StoreUnavailable) as error:
        yield found(subject, str(error))


def _not_checked(subject: str, option: str) -> Finding:
    return Finding(subject, NOT_CHECKED, f"give {option}")
