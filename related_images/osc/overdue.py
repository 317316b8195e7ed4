"""``openstack instance backup overdue``: which instances lack a recent backup."""

import argparse
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import (
    Image,
    Instance,
    InstanceRef,
)
from related_images.client.policies import Ages
from related_images.client.registry import HIDDEN
from related_images.osc import arguments, carried, finding
from related_images.osc.carried import Carried, Scope
from related_images.osc.commands import (
    PAGE,
    Table,
    TableCommand,
    shown_time,
    table,
)
from related_images.osc.plugin import Clients
from related_images.protocol import paths

BATCH: Final = 50
"""Images looked up at once: their ids are in the query."""

WARNING, CRITICAL, UNKNOWN = 1, 2, 3
"""Exit codes as monitoring systems take them."""

FUTURE: Final = "future"
"""The state of an instance whose newest backup is dated in the future: its age is not known."""

ALARMS: Final = {"critical", FUTURE}


@dataclass(frozen=True)
class Late:
    """An instance without a recent active backup, and the newest it has, if any.

    ``age`` is ``None`` without a backup, and if that is dated in the future.
    """

    instance_id: str
    installation_uuid: str | None
    project_id: str | None
    image_id: str | None = None
    made_at: datetime | None = None
    age: timedelta | None = None
    state: str = "critical"

    def by(self, ages: Ages) -> "Late":
        """The same, and how bad that is."""
        if self.age is None and self.made_at is not None:
            return replace(self, state=FUTURE)
        limit = timedelta.max if ages.critical is None else ages.critical
        is_critical = self.age is None or self.age > limit
        return replace(self, state="critical" if is_critical else "warning")


@dataclass(frozen=True)
class Search:
    """Looks for instances that are late: of a project, of an installation, with a label."""

    clients: Clients
    label: str | None
    filters: dict[str, Any]
    now: datetime

    def instances(self) -> Iterator[Instance]:
        """Every instance among which it looks."""
        return self.clients.relations.instances(**self.filters, limit=PAGE)

    def where(self) -> str:
        """Where it looks, for an error."""
        project, installation = self.filters["project_id"], self.filters["installation_uuid"]
        named = f"project {project}" if project else "all projects"
        return f"{named} in installation {installation}" if installation else named

    def late(self, ages: Ages, among: Container[str] | None = None) -> Iterator[Late]:
        """Those with no active backup as young as ``ages`` say.

        :param among: the ids of the instances to look at, which exist whatever was reported;
            ``None`` for all that were not reported gone
        """
        since = self.now - ages.older_than
        relations = self.clients.relations
        none_since = relations.instances(
            kind=model.BACKUP, label=self.label, latest_before=since, limit=PAGE, **self.filters
        )
        idle = (relations.instance(ref) for ref in self._without_active(since))
        seen = set[InstanceRef]()
        for instance in itertools.chain(none_since, idle):
            ref = instance.instance
            is_meant = instance.ended_at is None if among is None else ref.instance_id in among
            if is_meant and ref not in seen:
                seen.add(ref)
                yield self._judged(instance).by(ages)

    def _without_active(self, since: datetime) -> list[InstanceRef]:
        """Instances with a recent backup of which none is active."""
        recent = self.clients.relations.relations(
            kind=model.BACKUP,
            label=self.label,
            # just before, since that time itself is not overdue
            created_after=since - timedelta(microseconds=1),
            limit=PAGE,
            **self.filters,
        )
        images: dict[InstanceRef, set[str]] = {}
        for relation in recent:
            if relation.image_deleted_at is None:
                images.setdefault(relation.instance, set()).add(relation.image_id)
        active = self._active(image for found in images.values() for image in found)
        return [instance for instance, found in images.items() if active.isdisjoint(found)]

    def _active(self, image_ids: Iterable[str]) -> set[str]:
        """Which of the images are active and not of the future, hidden ones among them."""
        remaining, active = iter(image_ids), set[str]()
        registry = self.clients.relations.registry
        while batch := list(itertools.islice(remaining, BATCH)):
            for hidden in HIDDEN:
                query = [("id", f"in:{','.join(batch)}"), ("status", "active")]
                query += [("visibility", "all"), ("os_hidden", hidden), ("limit", str(BATCH))]
                for page in registry.pages(paths.IMAGES, query):
                    active |= page.read(self._of_the_past)
        return active

    def _of_the_past(self, body: Mapping[str, Any]) -> set[str]:
        return {image["id"] for image in body["images"] if not self._is_future(_made_at(image))}

    def _is_future(self, time: datetime) -> bool:
        return time > self.now + validation.CLOCK_SKEW

    def _judged(self, instance: Instance) -> Late:
        ref = instance.instance
        late = (ref.instance_id, ref.installation_uuid, instance.project_id)
        newest = max(self._newest(ref), key=_made_at, default=None)
        if newest is None:
            return Late(*late)
        made_at = _made_at(newest)
        age = None if self._is_future(made_at) else max(self.now - made_at, timedelta())
        return Late(*late, newest.id, made_at, age)

    def _newest(self, ref: InstanceRef) -> Iterator[Image]:
        """Its newest active backup that is not hidden, and the newest that is."""
        service = self.clients.images(ref.installation_uuid)
        owner = self.filters["project_id"]
        owned = {} if owner is None else {"owner": owner}
        for hidden in HIDDEN:
            yield from service.backups(
                ref.instance_id, self.label, limit=1, visibility="all", os_hidden=hidden, **owned
            )


def _made_at(image: Mapping[str, Any]) -> datetime:
    return validation.parse_time("created_at", image["created_at"])


class OverdueInstanceBackup(TableCommand):
    """List instances whose newest active backup is too old, or that have none at all.

    Every instance counts that any relation tells of, also one that was only ever started; those
    that are gone do not. With --policy stored it is every server that carries a policy with an age.
    A newest backup that is dated more than 5 minutes in the future does not count as recent.
    """

    exit_codes = (
        "Exit codes, as monitoring plug-ins give them: 0 none is overdue, 1 some are, 2 some are "
        "by more than --critical, have no backup, or have a newest backup dated in the future, or "
        "wrong usage, 3 it could not be found out, or no instance was there to be examined."
    )
    auth_required = False
    """Not before :meth:`run`: of what fails earlier the program makes a 1."""
    worst = 0

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        limit = parser.add_mutually_exclusive_group(required=True)
        limit.add_argument(
            "--older-than",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="how old the newest backup may be, such as 26h",
        )
        limit.add_argument(
            "--policy",
            choices=(carried.STORED,),
            help="stored: how old each server says in the compute service that it may be",
        )
        parser.add_argument(
            "--critical",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="from which age on it is critical (default: only without any backup)",
        )
        arguments.add_label(parser)
        parser.add_argument(
            "--installation",
            metavar="<installation-uuid>",
            type=validation.argument(validation.installation_uuid),
            help="instances of this compute installation (Nova) only",
        )
        arguments.add_scope(parser)

    def run(self, given: argparse.Namespace) -> int:
        self.worst = 0
        try:
            self._authenticate()
            super().run(given)
        except BrokenPipeError:
            raise
        except Exception as error:
            # above is only the program, which makes a 1 of it: some are overdue
            self.log.error("%s", error, exc_info=self.app.options.debug)
            return UNKNOWN
        return self.worst

    def _authenticate(self) -> None:
        """As the program does it before other commands."""
        self.auth_required = True
        self.app.prepare_to_run_command(self)

    def take_action(self, given: argparse.Namespace) -> Table:
        late = self._late(given)
        states = {row.state for row in late}
        found = CRITICAL if states & ALARMS else WARNING if states else 0
        # that something could not be found out is worse than a warning, and never hides an alarm
        self.worst = found if found == CRITICAL else max(found, self.worst)
        return table(
            (
                ("Instance ID", lambda row: row.instance_id),
                ("Installation UUID", lambda row: row.installation_uuid),
                ("Project ID", lambda row: row.project_id),
                ("Newest Backup", lambda row: row.image_id),
                ("Created At", lambda row: shown_time(row.made_at)),
                ("Age", lambda row: row.age and validation.format_span(row.age)),
                ("State", lambda row: row.state),
            ),
            late,
        )

    def _late(self, given: argparse.Namespace) -> list[Late]:
        project = finding.project_in_scope(self.app.client_manager, given)
        filters = {"project_id": project, "installation_uuid": given.installation}
        search = Search(self.clients, given.label, filters, datetime.now(UTC))
        if given.policy is None:
            return self._by_ages(search, Ages(given.older_than, given.critical))
        if given.critical is not None:
            raise CommandError("--policy stored takes every age from the servers: leave --critical")
        return self._by_policy(search, Scope(None, project, given.all_projects))

    def _by_ages(self, search: Search, ages: Ages) -> list[Late]:
        late = list(search.late(ages))
        if not late and all(instance.ended_at for instance in search.instances()):
            self._examined_nothing(f"no live instance is recorded for {search.where()}")
        return late

    def _by_policy(self, search: Search, scope: Scope) -> list[Late]:
        known = carried.carried(self.app.client_manager, scope)
        for fault in carried.faults(known):
            self.log.error("%s", fault)
            self.worst = UNKNOWN
        instances = list(search.instances())
        carried.must_be_of_one_installation(instances, known)
        ages = {
            it.server_id: it.policy.ages for it in known.values() if it.policy and it.policy.ages
        }
        if not ages:
            self._examined_nothing(
                f"no server of {search.where()} carries a policy with older_than"
            )
        elif search.filters["installation_uuid"] is not None and not instances:
            self._examined_nothing(f"no instance is recorded for {search.where()}")
        told = {it.instance.instance_id for it in instances}
        return list(_later_than_allowed(search, known, ages, told))

    def _examined_nothing(self, why: str) -> None:
        """A check of nothing is no success."""
        self.log.error("nothing was examined: %s; check what the command was asked for", why)
        self.worst = UNKNOWN


def _later_than_allowed(
    search: Search, known: dict[str, Carried], ages: Mapping[str, Ages], told: Container[str]
) -> Iterator[Late]:
    """Each server by its own ages; one without any backup once it is older than that itself.

    All are looked for once, by the shortest age: who is late by a longer one is late by that.
    """
    if not ages:
        return
    unheard_of = (
        Late(id, search.filters["installation_uuid"], known[id].project_id)
        for id in ages
        if id not in told
    )
    shortest = min(it.older_than for it in ages.values())
    for late in itertools.chain(search.late(Ages(shortest, None), ages), unheard_of):
        own, existed = ages[late.instance_id], search.now - known[late.instance_id].created_at
        judged = late.by(own)
        if judged.state == FUTURE or (existed if late.age is None else late.age) > own.older_than:
            yield judged
