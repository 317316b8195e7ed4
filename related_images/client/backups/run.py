"""Back up the servers that are due, wait for the backups, and delete old ones by rules."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

from related_images import model, validation
from related_images.client.backups.due import (
    CREATING,
    DUE,
    FAILED,
    MADE,
    NOT_DUE,
    RUNNING,
    SKIPPED,
    UNFINISHED,
    Recent,
    Search,
    ServerRun,
)
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.newest import NewestBackup
from related_images.client.backups.prune import Pruning, decide, without_image
from related_images.client.backups.retention import ACTIVE, Backup, Policy
from related_images.client.backups.server_policies import (
    ServerPolicies,
    faults,
    policies_of_server,
    stored,
)
from related_images.client.backups.servers import Server, Servers
from related_images.client.backups.stored_policy import Ages
from related_images.client.backups.volume_snapshots import AVAILABLE
from related_images.client.errors import ClientError, ServiceFailed
from related_images.client.glance import PAGE

PAUSE: Final = 2.0
"""Seconds between two requests for the states of backups."""

REFUSALS: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
"""Nova's responses for a server that was deleted, or whose state changed."""

UNRECORDED: Final = (
    "Nova made the image {}, but it is not recorded as a backup; check that every nova-api has the "
    "related-images filter of this version, and delete the image"
)
NOT_BEGUN: Final = "it was not begun, because the first backup was not recorded"


@dataclass(frozen=True)
class Limits:
    """How many backups are made at the same time, and how long.

    :ivar parallel: the number of backups that are made at the same time
    :ivar per_host: the number of these on one host
    :ivar deadline: the time after which no backup begins, and the run stops waiting
    """

    parallel: int = 4
    per_host: int = 1
    deadline: timedelta = timedelta(hours=6)


@dataclass
class BackupRun:
    """Back up servers, and delete old backups by rules.

    :param search: finds the newest backups; new backups get its label
    :param servers: lists servers and makes backups
    :param rules: the ages by which servers are due, and the retention rules; ``None`` to use the
        policy in the metadata of each server
    :param owner: the project of the caller, which owns the new backups; ``None`` if unknown
    :param limits: how many backups at the same time, and how long
    :param now: the current time
    """

    search: Search
    servers: Servers
    rules: tuple[Ages, Policy] | None
    owner: str | None = None
    limits: Limits = Limits()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    policies: dict[str, ServerPolicies] = field(default_factory=dict, init=False)

    @property
    def inventory(self) -> Inventory:
        """Reads and deletes backups."""
        return self.search.inventory

    @property
    def faults(self) -> list[str]:
        """A message for each invalid policy."""
        return list(faults(self.policies))

    def plan(self, found: Iterable[Server]) -> list[ServerRun]:
        """Return the servers to examine: with stored policies, those that have one.

        :param found: the servers in the scope of the run
        :returns: the servers, with the state :data:`NOT_DUE`, :data:`DUE` or :data:`SKIPPED`
        :raises GlanceError: if a request to Glance fails
        :raises ServiceFailed: if a request to Nova or Cinder fails
        :raises InstallationAmbiguous: if the servers are recorded in several installations
        """
        runs = [run for server in found if (run := self._with_ages(server))]
        newest = self.search.newest({run.server.id for run in runs})
        spans = [run.ages.older_than for run in runs if run.ages]
        recent = self.search.recent(self.now - max(spans)) if spans else Recent()
        for run in runs:
            if run.ages is not None:
                self._judge(run, newest.get(run.server.id), recent)
        return runs

    def _with_ages(self, server: Server) -> ServerRun | None:
        if self.rules is not None:
            return ServerRun(server, self.rules[0])
        policies = policies_of_server(
            server.id, server.project_id, server.created_at, server.metadata
        )
        if policies is None:
            return None
        self.policies[server.id] = policies
        if policies.policy is None or policies.policy.ages is None:
            reason = policies.fault or "its policy has no older_than"
            return ServerRun(server, None, reason=reason)
        return ServerRun(server, policies.policy.ages)

    def _judge(self, run: ServerRun, newest: NewestBackup | None, recent: Recent) -> None:
        latest = self.now + validation.CLOCK_SKEW
        if newest and newest.image_id not in recent.broken and newest.made_at <= latest:
            run.made_at = newest.made_at
        unfinished = recent.unfinished.get(run.server.id)
        if unfinished:
            run.become(SKIPPED, f"its backup {unfinished} is not finished")
        elif run.next_due is not None and run.next_due > self.now:
            run.become(NOT_DUE)
        elif run.server.obstacle:
            run.become(SKIPPED, run.server.obstacle)
        elif (counted := self._counted(run.server)) not in (None, self.owner) and self.owner:
            run.become(
                SKIPPED,
                f"only backups that project {counted} owns count, and project {self.owner} would "
                "own the new one; use an account of that project",
            )
        else:
            run.become(DUE)

    def _counted(self, server: Server) -> str | None:
        """Return the project whose backups of the server count; ``None`` for every project."""
        return self.search.project_id if self.rules is not None else server.project_id

    def run(self, runs: Iterable[ServerRun]) -> Iterator[ServerRun]:
        """Back up the servers that are due, and yield each when its result is known.

        The first backup must be recorded before others begin: without the filter in nova-api, Nova
        would make images that are no backups.

        :param runs: the result of :meth:`plan`
        """
        left = [run for run in runs if run.state == DUE]
        until = time.monotonic() + self.limits.deadline.total_seconds()
        is_recorded = False
        while left:
            if time.monotonic() >= until:
                _end(left)
            else:
                self._begin(left, self.limits.parallel if is_recorded else 1)
                self._look([run for run in left if run.state == RUNNING])
                is_recorded = is_recorded or any(run.relation for run in left)
                if not is_recorded and any(run.image_id and run.state == FAILED for run in left):
                    for run in left:
                        if run.state == DUE:
                            run.become(FAILED, NOT_BEGUN)
            yield from (run for run in left if run.state not in (DUE, RUNNING))
            left = [run for run in left if run.state in (DUE, RUNNING)]
            if any(run.state == RUNNING for run in left):
                time.sleep(PAUSE)

    def _begin(self, left: Iterable[ServerRun], parallel: int) -> None:
        """Ask Nova for as many backups as the limits allow."""
        running = [run for run in left if run.state == RUNNING]
        hosts = Counter(run.server.host for run in running)
        number = len(running)
        for run in left:
            if number >= parallel:
                return
            if run.state == DUE and hosts[run.server.host] < self.limits.per_host:
                self._request(run)
                number += run.state == RUNNING
                hosts[run.server.host] += run.state == RUNNING

    def _request(self, run: ServerRun) -> None:
        try:
            run.image_id = self.servers.back_up(run.server, self.search.label, datetime.now(UTC))
            run.become(RUNNING)
        except ServiceFailed as error:
            run.become(SKIPPED if error.status in REFUSALS else FAILED, str(error))

    def _look(self, running: Sequence[ServerRun]) -> None:
        """Update the states of the backups. If a request fails, the next look tries it again."""
        try:
            self._look_at_relations([run for run in running if run.relation is None])
            self._look_at_images([run for run in running if run.state == RUNNING])
        except ClientError as error:
            for run in running:
                run.reason = str(error)

    def _look_at_relations(self, runs: Sequence[ServerRun]) -> None:
        if not runs:
            return
        found = self.inventory.relations.relations(
            kind=model.BACKUP,
            label=self.search.label,
            created_after=self.now - validation.CLOCK_SKEW,
            page_size=PAGE,
        )
        recorded = {relation.image_id: relation for relation in found}
        for run in runs:
            relation = recorded.get(str(run.image_id))
            if relation is not None and relation.instance_id == run.server.id:
                run.relation = relation
            else:
                run.become(FAILED, UNRECORDED.format(run.image_id))

    def _look_at_images(self, runs: Sequence[ServerRun]) -> None:
        glance, volume_snapshots = self.inventory.relations.glance, self.inventory.volume_snapshots
        ids = [str(run.image_id) for run in runs]
        statuses = dict(glance.images(ids, lambda image: str(image["status"])))
        wanted = {id for run in runs if run.relation for id in run.relation.volume_snapshot_ids}
        known = volume_snapshots.statuses(wanted) if volume_snapshots and wanted else {}
        for run in runs:
            status = statuses.get(str(run.image_id))
            if status == ACTIVE and run.relation:
                ids_of_run = run.relation.volume_snapshot_ids
                self._look_at_volume_snapshots(run, [known.get(id) for id in ids_of_run])
            elif status is None:
                run.become(
                    FAILED, f"its image {run.image_id} was deleted: Nova could not finish it"
                )
            elif status not in UNFINISHED:
                run.become(FAILED, f"its image {run.image_id} has the status {status}")

    def _look_at_volume_snapshots(self, run: ServerRun, statuses: Sequence[str | None]) -> None:
        if all(status == AVAILABLE for status in statuses):
            run.become(MADE)
            run.made_at = run.relation.image_created_at if run.relation else None
        elif any(status not in (AVAILABLE, CREATING) for status in statuses):
            shown = ", ".join(status or "missing" for status in statuses)
            run.become(FAILED, f"its volume snapshots have the statuses {shown}")
            self._discard(run)

    def _discard(self, run: ServerRun) -> None:
        """Delete a new backup that cannot be restored, because it would count as the newest one."""
        relation = run.relation
        if relation is None:
            return
        try:
            self.inventory.delete(
                Backup(
                    relation.image_id,
                    relation.instance,
                    relation.label,
                    relation.made_at,
                    volume_snapshot_ids=relation.volume_snapshot_ids,
                )
            )
        except ClientError as error:
            run.reason += f"; its image {run.image_id} remains: {error}"

    def prune(self, runs: Iterable[ServerRun]) -> Pruning:
        """Decide which backups of the servers to delete; :meth:`Pruning.run` deletes them.

        Nothing is deleted of a server whose new backup failed or was skipped.

        :param runs: the servers after :meth:`run`, or after :meth:`plan` for a dry run
        :raises GlanceError: if a page for many servers cannot be read
        :raises ServiceFailed: if a request to Cinder fails
        """
        runs = list(runs)
        label, filters = self.search.label, self.search.filters
        kept = {run.server.id for run in runs if run.state in (FAILED, SKIPPED)}
        examined = {run.server.id for run in runs} - kept
        recorded = self.inventory.instances(label=label, **filters)
        instances = [each for each in recorded if each.instance_id in examined]
        rules = stored(self.policies) if self.rules is None else self.rules[1]
        pruning = decide(
            self.inventory, instances, rules, label=label, project_id=self.search.project_id
        )
        left = self.inventory.without_image(label=label, **filters)
        finished = [backup for backup in left if backup.instance.instance_id not in kept]
        return replace(pruning, without_image=without_image(finished))


def _end(runs: Iterable[ServerRun]) -> None:
    """Give up the backups that are not made at the deadline."""
    for run in runs:
        if run.state == DUE:
            run.become(FAILED, "it was not begun before the deadline")
        else:
            last = f"; the last request failed: {run.reason}" if run.reason else ""
            run.become(FAILED, f"its image {run.image_id} was not finished at the deadline{last}")
