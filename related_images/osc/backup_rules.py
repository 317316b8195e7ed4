"""The options of the rules that keep backups."""

import argparse
from dataclasses import replace
from datetime import UTC

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client.backups import stored_policy
from related_images.client.backups.retention import COUNTED, Policy, not_empty
from related_images.osc import nova_metadata


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the rules."""
    parser.add_argument(
        "--policy",
        choices=(nova_metadata.STORED,),
        help="stored: use the rules in the policy of each server (metadata in Nova), for images of "
        "the server's project only; backups of servers without rules are kept",
    )
    for rule in COUNTED:
        kind = "newest" if rule == "last" else rule
        parser.add_argument(
            f"--keep-{rule}",
            metavar="<number>",
            type=validation.argument(stored_policy.count),
            default=0,
            help=f"Number of {kind} backups to keep, or unlimited",
        )
    parser.add_argument(
        "--keep-within",
        metavar="<span>",
        type=validation.argument(validation.parse_span),
        help="Keep backups made within this time before the newest one, such as 7d",
    )
    parser.add_argument(
        "--keep-label",
        metavar="<label>",
        action="append",
        default=[],
        type=validation.argument(validation.label),
        help="Keep all backups with this label (repeat option for several labels)",
    )
    parser.add_argument(
        "--timezone",
        metavar="<name>",
        type=validation.argument(stored_policy.timezone),
        default=UTC,
        help="Time zone in which hours, days, weeks, months and years begin, such as Europe/Berlin "
        "(default: UTC)",
    )


def read(
    args: argparse.Namespace, project_id: str | None, *, orphans: bool = False
) -> Policy | None:
    """Return the rules of the command line; ``None`` for ``--policy stored``.

    :param project_id: the project to whose backups the rules apply; ``None`` for every project
    :param orphans: whether the rules apply to backups of deleted servers
    :raises PolicyEmpty: if there is no rule
    :raises CommandError: if there are rules beside ``--policy stored``
    """
    rules = Policy(
        **{rule: getattr(args, f"keep_{rule}") for rule in COUNTED},
        within=args.keep_within,
        labels=frozenset(args.keep_label),
        timezone=args.timezone,
        orphans=orphans,
    )
    if args.policy is None:
        return replace(not_empty(rules), project_id=project_id)
    if rules != Policy():
        raise CommandError(
            "--policy stored takes all rules from the policies of the servers; omit --keep-*, "
            "--timezone and --orphans"
        )
    return None
