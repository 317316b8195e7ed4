"""The recorded servers are compared with a service, and corrected; with every kind of database."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, select

from related_images import failpoints
from related_images.db import (
    Database,
    coverage,
    installations,
    notifications,
    origins,
    reconcile_resources,
    recorded_resources,
    relation_queries,
    relations,
    row_ids,
    stored_state,
    tables,
    usages,
)
from related_images.db.column_types import EPOCH
from related_images.db.notifications import Ended, Running, Started, Transferred
from related_images.db.reconcile_resources import Counts, Run
from related_images.db.resource_service import Page, Presence, Resource
from related_images.db.tables import instance, relation
from related_images.errors import InstallationNotFound, StoreUnavailable, UntrustedNovaAnswer
from related_images.failpoints import Point
from related_images.model import SERVER, Filters, InstanceRef, NewOrigin, Reporter
from tests.db.samples import NOON, NOVA, OTHER_NOVA, at, found, image_id, new, record

HOUR = timedelta(hours=1)


def vm(number: int) -> str:
    """Return the ID of a server; a higher number is later in the order of the IDs."""
    return str(UUID(int=number << 96))


def resource(number: int, image: str | None = None, **more: Any) -> Resource:
    given: dict[str, Any] = {"project_id": "p-1", "created_at": NOON, "launched_at": at(1)}
    return Resource(vm(number), **(given | {"image_id": image} | more))


class FakeNova:
    """The servers of a service, in pages of ``size``.

    :ivar owners: the owners of resources that were transferred after they were listed
    :ivar unlisted: what is responded about the servers that are not listed
    :ivar on_page: called with each page that was listed
    """

    service_name = "Nova"
    untrusted = UntrustedNovaAnswer

    def __init__(self, *servers: Resource, size: int = 2, resource_type: str = SERVER) -> None:
        self.resource_type = resource_type
        self.owners: dict[str, str] = {}
        self.servers = {one.instance_id: one for one in servers}
        self.size = size
        self.unlisted: dict[str, Presence] = {}
        self.looked_up: list[str] = []
        self.on_page: Callable[[Page], None] = lambda page: None
        self.wholes = [True]

    def pages(self, after: str) -> Iterator[Page]:
        while following := sorted(one for one in self.servers if one > after)[: self.size]:
            after = following[-1]
            page = Page({one: self.servers[one] for one in following}, after)
            self.on_page(page)
            yield page
        self.on_page(page := Page({}, None))
        yield page

    def look_up(self, instance_id: str) -> Presence:
        self.looked_up.append(instance_id)
        there = Presence.PRESENT if instance_id in self.servers else Presence.GONE
        return self.unlisted.get(instance_id, there)

    def project_of(self, instance_id: str) -> str | None:
        return self.owners.get(instance_id, self.servers[instance_id].project_id)

    def is_whole(self) -> bool:
        return self.wholes.pop(0) if self.wholes[1:] else self.wholes[0]


def start(database: Database, number: int, image: str | None = None, **more: Any) -> str:
    """Record the start of a server from an image, and return the image."""
    image = image or image_id()
    begun = {"created_at": NOON, "source": "notification", **more}
    database.write(relations.record, new(vm(number), image, "boot", **begun), relied_on=True)
    return image


def a_run(until: datetime | None = None) -> Run:
    now = datetime.now(UTC)
    return Run(NOVA, until or now - HOUR, now)


def compare(
    database: Database, nova: FakeNova, run: Run | None = None, dry_run: bool = False
) -> Counts:
    run = run or a_run()
    for _ in reconcile_resources.reconcile(database, [nova], run, dry_run):
        pass
    return run.counts


def expect_witness(database: Database) -> None:
    installations.register(database, NOVA, "nova", (), ("nova-bus",))


def compared_at(database: Database) -> datetime:
    """Return until when the gaps of the expected witness are closed; the epoch if none is."""
    times = select(tables.witness.c.compared_at)
    found: datetime = database.read(lambda connection: connection.execute(times).scalar_one())
    return found


def live(database: Database, installation: str = NOVA, resource_type: str = SERVER) -> list[str]:
    home = row_ids.installation_refs(installation, resource_type).scalar_subquery()
    rows = select(instance.c.instance_id).where(
        instance.c.ended_at.is_(None), instance.c.installation_ref == home
    )
    return sorted(database.read(lambda connection: connection.execute(rows).scalars().all()))


def starts(database: Database, number: int) -> list[tuple[str, str, datetime]]:
    """Return image, source and time of the starts of a server, oldest first."""
    rows = (
        select(tables.image.c.uuid, relation.c.source, relation.c.created_at)
        .join(tables.image, tables.image.c.id == relation.c.image_ref)
        .join(instance, instance.c.id == relation.c.instance_ref)
        .where(instance.c.instance_id == vm(number), relation.c.kind == "boot")
        .order_by(relation.c.created_at)
    )
    asked = database.read(lambda connection: connection.execute(rows).all())
    return [(row[0], row[1], row[2]) for row in asked]


def test_a_server_that_no_longer_exists_is_ended(database: Database) -> None:
    images = {number: start(database, number) for number in range(1, 8)}
    nova = FakeNova(*(resource(number, images[number]) for number in (2, 3, 5)))
    counts = compare(database, nova)
    assert live(database) == [vm(2), vm(3), vm(5)]
    assert counts == Counts(listed=3, checked=7, ended=4)
    assert sorted({*nova.looked_up} - nova.servers.keys()) == [vm(1), vm(4), vm(6), vm(7)]
    used = [one.live_instances for one in usages.usages(database, list(images.values()), None)]
    assert used == [0, 1, 1, 0, 1, 0, 0]
    assert compare(database, FakeNova(*nova.servers.values())) == Counts(listed=3, checked=3)


def test_servers_of_another_installation_are_left(database: Database) -> None:
    start(database, 1)
    start(database, 1, installation_uuid=OTHER_NOVA)
    start(database, 2, installation_uuid=OTHER_NOVA)
    assert compare(database, FakeNova(), a_run()).ended == 1
    assert (live(database), live(database, OTHER_NOVA)) == ([], [vm(1), vm(2)])


def test_a_missing_start_is_recorded(database: Database) -> None:
    known, missing, image = start(database, 1), image_id(), image_id()
    database.write(relations.record, new(vm(3), image, "snapshot"))
    nova = FakeNova(
        resource(1, known), resource(2, missing), resource(3, missing), resource(4, None)
    )
    counts = compare(database, nova)
    assert (counts.started, counts.listed) == (2, 4)
    assert starts(database, 1) == [(known, "notification", NOON)]
    assert starts(database, 2) == starts(database, 3) == [(missing, "backfill", NOON)]
    assert starts(database, 4) == []
    owned = found(database, kind="boot", image_id=missing, visible_to="p-1")
    assert owned == [(vm(3), "boot"), (vm(2), "boot")]
    assert compare(database, FakeNova(*nova.servers.values())).started == 0


def test_a_missing_rebuild_is_later_than_the_first_start(database: Database) -> None:
    first, second = start(database, 1, created_at=at(5)), image_id()
    nova = FakeNova(resource(1, second, created_at=NOON, launched_at=at(90)))
    assert compare(database, nova).started == 1
    assert starts(database, 1) == [
        (first, "notification", at(5)),
        (second, "backfill", at(90)),
    ]


def test_a_start_from_a_deleted_image_keeps_the_mark(database: Database) -> None:
    image = start(database, 1)
    database.write(relations.mark_deleted, image, at(7))
    assert compare(database, FakeNova(resource(1, image), resource(2, image))).started == 1
    marked = database.read(
        lambda connection: connection.execute(select(tables.image.c.deleted_at)).scalars().all()
    )
    assert marked == [at(7)]


def test_a_start_from_a_former_image_is_not_recorded_again(database: Database) -> None:
    image = start(database, 1)
    database.write(relations.mark_deleted, image, at(7))
    database.write(relations.record, new("vm-9", image))  # another image with the ID
    assert compare(database, FakeNova(resource(1, image))).started == 0


def test_the_image_of_a_server_that_is_being_changed_is_in_doubt(database: Database) -> None:
    expect_witness(database)
    known = start(database, 1)
    busy = {"is_image_settled": False}
    nova = FakeNova(resource(1, known, **busy), resource(2, image_id(), **busy))
    run = a_run()
    assert compare(database, nova, run) == Counts(listed=2, checked=1, doubtful=1)
    assert starts(database, 2) == []
    assert compared_at(database) == EPOCH


def test_a_server_whose_creation_failed_does_not_hold_its_image(database: Database) -> None:
    image = start(database, 1)
    start(database, 2, image, created_at=datetime.now(UTC))
    failed = {"launched_at": None, "has_failed": True}
    nova = FakeNova(*(resource(number, image, **failed) for number in (1, 2, 3)))
    counts = compare(database, nova)
    assert counts == Counts(listed=3, checked=2, ended=1, too_new=1)
    assert live(database) == [vm(2)]
    assert starts(database, 3) == []
    assert compare(database, FakeNova(*nova.servers.values())).ended == 0


@pytest.mark.parametrize("ended", [at(5), None], ids=["long ago", "just now"])
def test_an_end_is_removed_if_the_server_exists(database: Database, ended: datetime | None) -> None:
    image = start(database, 1)
    ended_at = ended or datetime.now(UTC)
    notifications.store(database, [Ended(InstanceRef(NOVA, vm(1)), "p-1", ended_at)])
    restored = compare(database, FakeNova(resource(1, image))).restored
    assert (restored, live(database)) == ((1, [vm(1)]) if ended else (0, []))


def test_the_image_of_a_shelved_server_that_is_ended_is_left_behind(database: Database) -> None:
    record(database, new(vm(1), kind="shelved", created_at=at(0)))
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert (row.kind, row.ended_at) == ("shelved", None)
    assert compare(database, FakeNova(resource(2))).ended == 1
    (left,) = database.read(relation_queries.find, Filters(leftover=True), 10)
    assert (left.image_id, left.ended_at is None) == (row.image_id, False)


def test_a_shelved_server_whose_end_is_removed_needs_its_image_again(database: Database) -> None:
    """An earlier shelving, which an event ended, remains ended."""
    image = start(database, 1)
    past, present = new(vm(1), kind="shelved"), new(vm(1), kind="shelved", created_at=at(2))
    record(database, past)
    notifications.store(database, [Running(InstanceRef(NOVA, vm(1)), "p-1", at(1))])
    record(database, present)
    notifications.store(database, [Ended(InstanceRef(NOVA, vm(1)), "p-1", at(3))])
    assert compare(database, FakeNova(resource(1, image))).restored == 1
    images = [past.image_id, present.image_id]
    assert [one.shelved for one in usages.usages(database, images, None)] == [0, 1]


def test_a_server_with_a_new_report_is_not_ended(database: Database) -> None:
    start(database, 1)
    start(database, 2, created_at=datetime.now(UTC))
    start(database, 3)
    database.write(relations.record, new(vm(3), created_at=datetime.now(UTC)))
    start(database, 4)
    volume = InstanceRef(OTHER_NOVA, "v-1", "volume")
    origin = NewOrigin(InstanceRef(NOVA, vm(4)), volume, datetime.now(UTC), "p-1", "service")
    origins.record(database, origin, Reporter(frozenset({"nova"})))
    counts = compare(database, FakeNova())
    assert (counts.ended, counts.too_new) == (1, 3)
    assert live(database) == [vm(2), vm(3), vm(4)]


def test_a_server_that_is_reported_during_the_run_is_not_ended(database: Database) -> None:
    for number in (1, 2):
        start(database, number)
    nova, run = FakeNova(), a_run(until=datetime.now(UTC))
    compared = nova.look_up

    def reported(instance_id: str) -> Presence:
        if instance_id == vm(2):
            start(database, 2, created_at=datetime.now(UTC))
            start(database, 3, created_at=datetime.now(UTC))
        return compared(instance_id)

    nova.look_up = reported  # type: ignore[method-assign]
    compare(database, nova, run)
    assert live(database) == [vm(2), vm(3)]


@pytest.mark.parametrize("presence", [Presence.PRESENT, Presence.DOUBTFUL, Presence.FOREIGN])
def test_an_unlisted_server_that_is_not_gone_is_left(
    database: Database, presence: Presence
) -> None:
    expect_witness(database)
    start(database, 1)
    nova, run = FakeNova(), a_run()
    nova.unlisted = {vm(1): presence}
    counts = compare(database, nova, run)
    assert live(database) == [vm(1)]
    assert counts.ended == 0
    assert counts.doubtful == (presence is Presence.DOUBTFUL)
    assert counts.foreign == (presence is Presence.FOREIGN)
    doubted = presence is Presence.DOUBTFUL
    assert compared_at(database) == (EPOCH if doubted else run.started_at)


@pytest.mark.parametrize(
    ("wholes", "ended"), [([False, True], 1), ([True, False, True], 0), ([True, True, False], 1)]
)
def test_a_service_that_is_partly_down_is_no_complete_comparison(
    database: Database, wholes: list[bool], ended: int
) -> None:
    """Part of it is down at the beginning, after a server was found to be gone, or at the end."""
    expect_witness(database)
    start(database, 1)
    nova, run = FakeNova(), a_run()
    nova.wholes = list(wholes)
    assert compare(database, nova, run) == Counts(checked=1, ended=ended, doubtful=1)
    assert live(database) == [vm(1)][ended:]
    assert not run.is_complete
    assert compared_at(database) == EPOCH


def test_the_time_of_a_complete_comparison_is_that_of_its_begin(database: Database) -> None:
    expect_witness(database)
    start(database, 1)
    compare(database, FakeNova(), first := a_run())
    assert compared_at(database) == first.started_at
    compare(database, FakeNova(), a_run(), dry_run=True)
    assert compared_at(database) == first.started_at
    assert [gap.since for gap in database.read(coverage.gaps)] == [first.started_at]


def test_a_dry_run_counts_and_changes_nothing(database: Database) -> None:
    image = start(database, 1)
    for number in (2, 3):
        start(database, number)
    notifications.store(database, [Ended(InstanceRef(NOVA, vm(2)), "p-1", at(5))])
    servers = resource(2, image), resource(4, image)
    planned = compare(database, FakeNova(*servers), dry_run=True)
    assert (planned.ended, planned.restored, planned.started) == (2, 1, 2)
    assert live(database) == [vm(1), vm(3)]
    assert starts(database, 4) == []
    assert compare(database, FakeNova(*servers)) == planned


def test_a_service_that_loses_all_servers_meanwhile_is_not_trusted(database: Database) -> None:
    images = [start(database, number) for number in range(1, 5)]
    nova = FakeNova(resource(1, images[0]), resource(2, images[1]))

    def lost(page: Page) -> None:
        if page.until is None:
            nova.servers.clear()

    nova.on_page = lost
    with pytest.raises(UntrustedNovaAnswer, match="no longer has the servers"):
        compare(database, nova)
    assert len(live(database)) == 4


def test_an_unknown_installation_is_refused(database: Database) -> None:
    with pytest.raises(InstallationNotFound, match="correct the UUID"):
        reconcile_resources.types_of(database, NOVA)


@pytest.mark.parametrize(
    ("recorded", "there", "said"),
    [
        (1, [], "has none of them and lists none"),
        (1, [20], "has none of them and lists others"),
        # it is recorded, although its report is too new for the sample
        (10, [99], None),
        (10, [1], None),
        (0, [], None),
    ],
)
def test_a_service_is_recognized_by_the_recorded_servers(
    database: Database, recorded: int, there: list[int], said: str | None
) -> None:
    database.write(relations.record, new("i-1"))
    for number in range(1, recorded + 1):
        start(database, number)
    start(database, 99, created_at=datetime.now(UTC))
    nova = FakeNova(*(resource(number) for number in there))
    nova.unlisted = {"i-1": Presence.FOREIGN}
    if said is None:
        reconcile_resources.check_service(database, [nova], a_run())
        return
    with pytest.raises(UntrustedNovaAnswer, match=said):
        reconcile_resources.check_service(database, [nova], a_run())


def test_live_servers_are_found_behind_many_ended_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_resources, "RECORDED", 2)
    for number in range(1, 8):
        start(database, number)
    ended = [Ended(InstanceRef(NOVA, vm(number)), "p-1", at(5)) for number in (1, 2, 3, 4, 5)]
    notifications.store(database, ended)
    assert reconcile_resources._sample(database, a_run(), SERVER) == [vm(6), vm(7)]


POINTS = [Point.RESOURCES_COMPARED, Point.RESOURCES_WRITTEN, Point.RESOURCES_SETTLED]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.lower())
def test_an_interrupted_run_is_continued_with_the_same_result(
    database: Database, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    """Whichever step fails, the corrections and the counts are those of a run without failures."""
    monkeypatch.setattr(recorded_resources, "RECORDED", 2)
    monkeypatch.setattr(reconcile_resources, "LISTED", 1)
    images = {number: start(database, number) for number in range(1, 12)}
    there = [resource(number, images[number]) for number in (2, 3, 5, 8)]
    there += [resource(number, images[1]) for number in (6, 12, 13)]
    run = reconcile_resources.begin(database, NOVA, HOUR, is_new=False)
    expected = compare(database, FakeNova(*there), replace(run), dry_run=True)
    interruptions = 0
    for step in range(1, 100):
        passed = 0

        def interrupt(reached: Point, step: int = step) -> None:
            nonlocal passed
            passed += reached is point
            if passed == step and reached is point:
                raise StoreUnavailable("the database is gone")

        monkeypatch.setattr(failpoints, "hook", interrupt)
        run = reconcile_resources.begin(database, NOVA, HOUR, is_new=False)
        try:
            compare(database, FakeNova(*there), run)
        except StoreUnavailable:
            interruptions += 1
            continue
        break
    assert interruptions > 3
    assert run.is_complete
    # a server whose start the interrupted run recorded counts as checked in the next run
    assert replace(run.counts, checked=expected.checked) == expected
    assert live(database) == [vm(number) for number in (2, 3, 5, 6, 8, 12, 13)]
    assert (len(starts(database, 6)), len(starts(database, 12))) == (2, 1)
    assert reconcile_resources.begin(database, NOVA, HOUR, is_new=False).after == ""


def test_a_run_with_an_unknown_format_is_ignored(database: Database) -> None:
    start(database, 1)
    stored = replace(a_run(), after=vm(7)).as_json()
    assert Run.from_json(stored).after == vm(7)
    for text in (stored.replace("checked", "seen"), stored.replace("after", "x"), "{}", "[]", "7"):
        name = reconcile_resources.POSITION + NOVA
        database.write(stored_state.put, name, text)
        assert reconcile_resources.begin(database, NOVA, HOUR, is_new=False).after == ""
    database.write(stored_state.put, name, stored)
    assert reconcile_resources.begin(database, NOVA, HOUR, is_new=False).after == vm(7)
    assert reconcile_resources.begin(database, NOVA, HOUR, is_new=True).after == ""


def test_servers_recorded_while_nova_is_listed_are_compared_once(database: Database) -> None:
    """A server that is created and recorded behind the position is neither ended nor doubted."""
    images = [start(database, number) for number in range(2, 8)]
    nova = FakeNova(*(resource(number, image) for number, image in enumerate(images, 2)))

    def created(page: Page) -> None:
        if vm(1) not in nova.servers:
            image = image_id()
            nova.servers[vm(1)] = resource(1, image)
            notifications.store(
                database, [Started(InstanceRef(NOVA, vm(1)), "p-1", datetime.now(UTC), image)]
            )

    nova.on_page = created
    counts = compare(database, nova)
    assert (counts.ended, counts.doubtful) == (0, 0)
    assert len(live(database)) == 7


def volume(number: int, source: int | None = None, **more: Any) -> Resource:
    given: dict[str, Any] = {"source": None if source is None else ("volume", vm(source))}
    return resource(number, **(given | more))


def of_cinder(*volumes: Resource, **others: list[Resource]) -> list[FakeNova]:
    return [
        FakeNova(*volumes, resource_type="volume"),
        FakeNova(*others.get("snapshots", []), resource_type="volume-snapshot"),
        FakeNova(*others.get("backups", []), resource_type="volume-backup"),
    ]


def compare_volumes(
    database: Database, services: list[FakeNova], run: Run | None = None, dry_run: bool = False
) -> Counts:
    run = run or a_run()
    for _ in reconcile_resources.reconcile(database, services, run, dry_run):
        pass
    return run.counts


def shown_origins(database: Database, visible_to: str | None = None) -> dict[str, str | None]:
    """Return type and number of the source of each resource, by its own type and number."""
    wanted = Filters(visible_to=visible_to)
    return {
        _short(one.instance): _short(one.source) if one.source else None
        for one in origins.page(database, wanted, 100, None).items
    }


def _short(ref: InstanceRef) -> str:
    return f"{ref.resource_type} {UUID(ref.instance_id).int >> 96}"


@pytest.mark.parametrize("size", [1, 10], ids=["in parts", "at once"])
def test_origins_and_owners_of_volumes_are_recorded(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reconcile_resources, "CORRECTED", size)
    cinder = of_cinder(
        volume(1),
        volume(2, 1),
        resource(3, source=("volume-snapshot", vm(1))),
        snapshots=[volume(1, 1, project_id="p-2")],
        backups=[volume(1, 1)],
    )
    planned = compare_volumes(database, cinder, dry_run=True)
    assert shown_origins(database) == {}
    counts = compare_volumes(database, cinder)
    # the volume snapshot became known as the source of a volume
    assert replace(counts, checked=0) == planned
    assert planned == Counts(listed=5, started=4, recorded=5, unknown=1)
    expected = {
        "volume 2": "volume 1",
        "volume 3": "volume-snapshot 1",
        "volume-snapshot 1": "volume 1",
        "volume-backup 1": "volume 1",
    }
    assert shown_origins(database) == expected
    assert shown_origins(database, "p-2") == {"volume-snapshot 1": None}
    assert shown_origins(database, "p-1").keys() == expected.keys() - {"volume-snapshot 1"}
    again = compare_volumes(database, cinder)
    assert again == Counts(listed=5, checked=5, unknown=1)


def test_a_volume_whose_start_is_recorded_is_not_unknown(database: Database) -> None:
    database.write(relations.record, new(vm(1), kind="boot", resource_type="volume"))
    blank = NewOrigin(InstanceRef(NOVA, vm(2), "volume"), None, NOON, "p-1")
    origins.record(database, blank, Reporter(frozenset()))
    claim: dict[str, Any] = {"claimed_image": image_id()}
    cinder = of_cinder(volume(1, **claim), volume(2, **claim), volume(3, 1, **claim), volume(4))
    found = list(reconcile_resources.reconcile(database, cinder, run := a_run(), False))
    assert [it.rejected for it in found if it.rejected] == []
    assert run.counts.unknown == 1
    claimed = of_cinder(volume(4, claimed_image="x"))
    found = list(reconcile_resources.reconcile(database, claimed, a_run(), True))
    assert [one.instance_id for it in found for one in it.rejected] == [vm(4)]


def test_volumes_that_no_longer_exist_are_ended(database: Database) -> None:
    cinder = of_cinder(volume(1), volume(2, 1), snapshots=[volume(3, 1)], backups=[volume(4, 1)])
    compare_volumes(database, cinder)
    # servers of the same installation are of another service
    start(database, 1)
    left = of_cinder(volume(1))
    assert compare_volumes(database, left) == Counts(listed=1, checked=4, ended=3, unknown=1)
    for resource_type, ids in {"volume": [vm(1)], "volume-snapshot": [], SERVER: [vm(1)]}.items():
        assert live(database, resource_type=resource_type) == ids
    back = compare_volumes(database, cinder, a_run(until=datetime.now(UTC) + HOUR))
    assert back.restored == 3


def test_a_missed_transfer_is_recorded(database: Database) -> None:
    compare_volumes(database, of_cinder(volume(1), volume(2, 1)))
    moved = of_cinder(volume(1), volume(2, 1, project_id="p-2"))
    assert compare_volumes(database, moved, dry_run=True).moved == 1
    assert shown_origins(database, "p-2") == {}
    assert compare_volumes(database, moved) == Counts(listed=2, checked=2, moved=1, unknown=1)
    assert shown_origins(database, "p-1") == {}
    assert shown_origins(database, "p-2") == {"volume 2": None}


def test_a_volume_that_is_transferred_during_the_run_keeps_its_new_owner(
    database: Database,
) -> None:
    """It was listed with its old owner, and the notification is stored before the comparison."""
    compare_volumes(database, of_cinder(volume(1), volume(2, 1)))
    stale = of_cinder(volume(1), volume(2, 1))

    def transferred(_: Page) -> None:
        at_once = datetime.now(UTC)
        event = Transferred(InstanceRef(NOVA, vm(2), "volume"), "p-2", at_once)
        notifications.store(database, [event])

    stale[0].on_page = transferred
    stale[0].owners = {vm(2): "p-2"}
    assert compare_volumes(database, stale).moved == 0
    assert shown_origins(database, "p-2") == {"volume 2": None}


def test_a_comparison_with_cinder_closes_the_gaps_of_the_bus_alone(database: Database) -> None:
    """Cinder does not state the image of a volume, which cinder-api would have reported."""
    expected = ("nova-bus", "cinder-api", "cinder-bus")
    installations.register(database, NOVA, "both", (), expected)
    assert compare_volumes(database, of_cinder(), run := a_run()) == Counts()
    gaps = {one.witness: one.since for one in database.read(coverage.gaps)}
    assert gaps == {"nova-bus": None, "cinder-api": None, "cinder-bus": run.started_at}


def test_a_backfill_ends_nothing_and_closes_no_gap(database: Database) -> None:
    installations.register(database, NOVA, "cinder", (), ("cinder-bus",))
    compare_volumes(database, of_cinder(volume(1), volume(2)), replace(a_run(), is_backfill=True))
    run = reconcile_resources.begin(database, NOVA, HOUR, is_new=False, is_backfill=True)
    counts = compare_volumes(database, of_cinder(volume(1), volume(3, 1)), run)
    assert counts == Counts(listed=2, started=1, recorded=1, unknown=1)
    assert live(database, resource_type="volume") == [vm(1), vm(2), vm(3)]
    assert [one.since for one in database.read(coverage.gaps)] == [None]


def test_an_interrupted_run_is_continued_with_the_type_that_it_reached(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cinder = of_cinder(volume(1), snapshots=[volume(3, 1), volume(4, 1)], backups=[volume(5, 1)])

    def interrupt(_: Page) -> None:
        raise StoreUnavailable("the database is gone")

    cinder[2].on_page = interrupt
    run = reconcile_resources.begin(database, NOVA, HOUR, is_new=False)
    with pytest.raises(StoreUnavailable):
        compare_volumes(database, cinder, run)
    for is_backfill, reached in ((True, ""), (False, "volume-snapshot")):
        run = reconcile_resources.begin(database, NOVA, HOUR, is_new=False, is_backfill=is_backfill)
        assert run.resource_type == reached
    cinder[0].on_page = cinder[2].on_page
    cinder[2].on_page = lambda page: None
    counts = compare_volumes(database, cinder, run)
    assert (counts.listed, counts.started) == (4, 3)
    assert reconcile_resources.begin(database, NOVA, HOUR, is_new=False).resource_type == ""


VOLUMES = ("volume", "volume-snapshot", "volume-backup")


@pytest.mark.parametrize(
    ("witnesses", "recorded", "types"),
    [
        ((), (), (SERVER,)),
        (("nova-api",), (), (SERVER,)),
        (("cinder-api",), (), VOLUMES),
        ((), (SERVER,), (SERVER,)),
        ((), ("volume",), VOLUMES),
        ((), ("volume-backup",), VOLUMES),
        ((), (SERVER, "volume"), (SERVER, *VOLUMES)),
        (("nova-bus", "cinder-bus"), (), (SERVER, *VOLUMES)),
    ],
)
def test_the_service_of_an_installation_follows_from_what_is_known_of_it(
    database: Database,
    witnesses: tuple[str, ...],
    recorded: tuple[str, ...],
    types: tuple[str, ...],
) -> None:
    installations.register(database, NOVA, "east", (), witnesses)
    for resource_type in recorded:
        database.write(relations.record, new(vm(1), resource_type=resource_type))
    assert reconcile_resources.types_of(database, NOVA) == types


def test_an_end_waits_for_a_report_that_is_not_committed(pair: tuple[Database, Database]) -> None:
    one, other = pair
    start(one, 1)
    (ref,) = one.read(lambda connection: connection.execute(select(instance.c.id)).scalars().all())
    run, written, ending = a_run(until=datetime.now(UTC)), threading.Event(), list[int]()

    def report(connection: Connection) -> None:
        relations.record(connection, new(vm(1), created_at=datetime.now(UTC)))
        written.set()
        # the other transaction waits for the lock of this one, which commits meanwhile
        time.sleep(0.5)

    def end() -> None:
        assert written.wait(20)
        ending.append(other.write(recorded_resources.end, [ref], datetime.now(UTC), run.until))

    ender = threading.Thread(target=end)
    ender.start()
    one.write(report)
    ender.join()
    assert ending == [0]
    assert live(one) == [vm(1)]
