"""Origins: the stored graph, what follows from it, and what is kept."""

import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from related_images.db import (
    delete_protection,
    image_owners,
    installations,
    lineage,
    merge,
    origin_walk,
    origins,
    parent_links,
    purge,
    relation_removal,
    relations,
    usages,
)
from related_images.db.database import Database
from related_images.db.row_ids import get_or_create_project
from related_images.db.tables import descent, image, project
from related_images.errors import (
    ImageInUse,
    InstallationBound,
    OriginConflict,
    OriginNotFound,
    OriginRefused,
)
from related_images.model import (
    NOTIFICATION,
    RESOURCE_TYPES,
    SERVICE,
    SOURCE_TYPES,
    UNUSED,
    USED,
    Filters,
    InstanceRef,
    NewOrigin,
    Origin,
    OriginPosition,
    Purged,
    Reporter,
    ServiceUser,
    Usage,
)
from tests.db.samples import (
    NOVA,
    OTHER_NOVA,
    at,
    counts,
    image_id,
    new,
    record,
    record_claims,
    server,
)

REPORTER = Reporter(frozenset({"cinder"}))
LATER = at(1000)


def volume(name: str) -> InstanceRef:
    return InstanceRef(NOVA, name, "volume")


def origin(
    ref: InstanceRef, source: InstanceRef | None, minutes: float = 0, project_id: str | None = "p-1"
) -> NewOrigin:
    return NewOrigin(ref, source, at(minutes), project_id, "service")


def come(
    database: Database,
    ref: InstanceRef,
    source: InstanceRef | None,
    minutes: float = 0,
    project_id: str | None = "p-1",
) -> Origin:
    return origins.record(database, origin(ref, source, minutes, project_id), REPORTER)[0]


def relate(database: Database, ref: InstanceRef, image: str, kind: str, **more: Any) -> None:
    record(database, new(ref.instance_id, image, kind, resource_type=ref.resource_type, **more))


def links(connection: Connection) -> dict[str, tuple[str, str | None]]:
    """Return the parent of each image, and the project that sees the link."""
    parent = image.alias()
    query = (
        select(image.c.uuid, parent.c.uuid, project.c.project_id)
        .select_from(descent.join(image, image.c.id == descent.c.image_ref))
        .join(parent, parent.c.id == descent.c.parent_ref)
        .outerjoin(project, project.c.id == descent.c.project_ref)
    )
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def is_protected(database: Database, image: str) -> bool:
    try:
        begun = delete_protection.begin(database, image, None, forced=False)
    except ImageInUse:
        return True
    delete_protection.withdraw(database, begun)
    return False


def test_an_origin_is_recorded_once(database: Database) -> None:
    wanted = origin(volume("v-2"), volume("v-1"))
    first, created = origins.record(database, wanted, REPORTER)
    assert (first.source, created) == (volume("v-1"), True)
    assert origins.record(database, wanted, REPORTER) == (first, False)
    with pytest.raises(OriginConflict, match="another source of the volume v-2"):
        come(database, volume("v-2"), None)
    assert counts(database) == {"installation": 1, "project": 1, "instance": 2, "origin": 1}


@pytest.mark.parametrize("source", [volume("v-1"), None])
@pytest.mark.parametrize("before", [SERVICE, NOTIFICATION])
def test_a_notification_that_repeats_a_report_gives_the_reported_origin(
    database: Database, source: InstanceRef | None, before: str
) -> None:
    said = replace(origin(volume("v-2"), source), reported_by=before)
    first, _ = origins.record(database, said, REPORTER)
    later = replace(said, since=at(1), reported_by=NOTIFICATION)
    assert origins.record(database, later, REPORTER) == (first, False)
    assert origins.page(database, Filters(), 9, None).items == [first]


@pytest.mark.parametrize("type", RESOURCE_TYPES)
def test_only_sources_of_the_allowed_types_are_accepted(type: str) -> None:
    ref = InstanceRef(NOVA, "r-1", type)
    for source_type in RESOURCE_TYPES:
        source = InstanceRef(NOVA, "r-2", source_type)
        if source_type in SOURCE_TYPES[type]:
            assert origin(ref, source).source == source
        else:
            with pytest.raises(OriginRefused, match=f"a {type} cannot come from a {source_type}"):
                origin(ref, source)
    with pytest.raises(OriginRefused, match="cannot be its own source"):
        origin(ref, ref)


def test_a_bound_installation_accepts_its_own_service_user_alone(database: Database) -> None:
    installations.register(database, NOVA, "cinder", [ServiceUser("another")])
    with pytest.raises(InstallationBound):
        come(database, volume("v-2"), volume("v-1"))
    with pytest.raises(InstallationBound):
        remove(database, volume("v-2"))
    assert counts(database).keys() == {"installation"}


def chain(database: Database, length: int) -> str:
    """Record a chain of volumes that ends at a volume made from an image; return the image."""
    base = image_id()
    relate(database, volume("0"), base, "boot")
    for number in range(1, length + 1):
        come(database, volume(f"{number}"), volume(f"{number - 1}"), number)
    return base


def end(database: Database, *refs: InstanceRef) -> None:
    for ref in refs:
        assert database.write(relations.end_instance, ref, at(1))


def test_the_guard_refuses_what_it_does_not_follow(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (parent_links, origin_walk):
        monkeypatch.setattr(module, "STEPS", 3)
    monkeypatch.setattr(origin_walk, "BEYOND", 4)
    # the statement is built once, with these numbers
    build = usages._count_dependents.__wrapped__
    monkeypatch.setattr(usages, "_count_dependents", build)
    base, made = chain(database, 3), [image_id() for _ in range(5)]
    end(database, *(volume(f"{number}") for number in range(4)))
    assert not is_protected(database, base)
    assert usages.usages(database, [base], None, {base: "p-1"}) == [
        Usage(base, 4, 0, at(1), used_by_others=False, state=UNUSED)
    ]
    for number in (4, 5):
        come(database, volume(f"{number}"), volume(f"{number - 1}"), number)
    end(database, volume("4"))
    with pytest.raises(ImageInUse, match="resources that come from it through more than 3 origins"):
        delete_protection.begin(database, base, None, forced=False)
    assert delete_protection.begin(database, base, None, forced=True).in_use == 0
    for project_id in (None, "p-1"):
        assert usages.usages(database, [base], project_id, {base: "p-1"}) == [
            Usage(base, 4, 0, at(1), used_by_others=None)
        ]
    for number, one in enumerate(made):
        relate(database, volume(f"{number}"), one, "snapshot", created_at=at(99))
    assert database.read(links).keys() == set(made[:4])


def test_a_long_chain_is_followed(database: Database) -> None:
    base, made = chain(database, origin_walk.STEPS), image_id()
    last = volume(f"{origin_walk.STEPS}")
    end(database, *(volume(f"{number}") for number in range(origin_walk.STEPS)))
    with pytest.raises(ImageInUse, match=rf"used by 1 live volume \({last.instance_id} of "):
        delete_protection.begin(database, base, None, forced=False)
    relate(database, last, made, "snapshot", created_at=at(999))
    assert database.read(links) == {made: (base, "p-1")}


def test_ended_resources_in_a_cycle_do_not_protect_an_image(database: Database) -> None:
    base, (one, two) = image_id(), (volume("v-1"), volume("v-2"))
    relate(database, one, base, "boot")
    come(database, one, two)
    come(database, two, one)
    end(database, one, two)
    assert not is_protected(database, base)
    assert usages.usages(database, [base], None) == [Usage(base, 2, 0, at(1))]


def test_a_changed_owner_decides_who_sees_the_links_below(database: Database) -> None:
    base, made = image_id(), image_id()
    one, two = volume("v-1"), volume("v-2")
    relate(database, one, base, "boot")
    come(database, two, one)
    relate(database, two, made, "snapshot", created_at=at(5))
    assert database.read(links) == {made: (base, "p-1")}
    come(database, one, None, 0, "p-2")
    assert database.read(links) == {made: (base, None)}
    come(database, two, one, 0, "p-2")
    assert database.read(links) == {made: (base, None)}

    def move(connection: Connection, project_id: str) -> None:
        (ref,) = connection.execute(select(image.c.id).where(image.c.uuid == made)).one()
        image_owners.move(connection, ref, get_or_create_project(connection, project_id))

    database.write(move, "p-2")
    assert database.read(links) == {made: (base, "p-2")}
    come(database, one, None, 0, "p-1")
    database.write(move, "p-1")
    database.write(move, "p-2")
    assert database.read(links) == {made: (base, None)}


def test_a_detached_start_changes_the_parents_below(database: Database) -> None:
    bases, made = [image_id(), image_id()], image_id()
    for minutes, base in enumerate(bases):
        relate(database, volume("v-1"), base, "boot", created_at=at(minutes))
    come(database, volume("v-2"), volume("v-1"), 3)
    relate(database, volume("v-2"), made, "snapshot", created_at=at(5))
    assert database.read(links) == {made: (bases[1], "p-1")}
    database.write(relation_removal.detach, volume("v-1"), bases[1], "boot")
    assert database.read(links) == {made: (bases[0], "p-1")}
    database.write(relation_removal.detach, volume("v-1"), bases[0], "boot")
    assert database.read(links) == {}


def test_a_rolled_back_image_leaves_the_rows_of_an_origin(database: Database) -> None:
    wanted = new("v-1", resource_type="volume")
    for ref, source in ((volume("v-1"), None), (volume("v-2"), volume("v-1"))):
        (recorded,) = record(database, wanted)
        come(database, ref, source)
        assert database.write(relation_removal.roll_back, recorded)
        assert counts(database)["origin"] == int(ref.instance_id[-1])


def test_a_purge_keeps_a_source_as_long_as_what_comes_from_it(database: Database) -> None:
    base, made = image_id(), image_id()
    refs = [volume(f"v-{number}") for number in range(3)]
    relate(database, refs[0], base, "boot")
    for source, ref in itertools.pairwise(refs):
        come(database, ref, source)
    relate(database, refs[2], made, "snapshot", created_at=at(5))
    for one in (base, made):
        database.write(relations.mark_deleted, one, at(1))
    end(database, refs[0], refs[1])
    # the image is removed, but the last volume is live
    assert purge.purge(database, LATER) == Purged(relations=1, images=1)
    assert counts(database)["origin"] == 2
    end(database, refs[2])
    assert purge.due(database, LATER) == Purged(instances=1)
    assert purge.purge(database, LATER) == Purged(relations=1, images=1, instances=3)
    assert purge.due(database, LATER) == Purged()
    assert counts(database).keys() == {"installation", "project"}


def remove(database: Database, ref: InstanceRef, minutes: float = 0) -> None:
    origins.remove(database, ref, at(minutes), REPORTER)


def test_a_removed_origin_leaves_the_rows_that_others_need(database: Database) -> None:
    one, two, three = (volume(f"v-{number}") for number in range(3))
    come(database, two, one, 0, None)
    come(database, two, None, 1, None)
    remove(database, two)
    assert [o.has_source for o in origins.page(database, Filters(), 9, None).items] == [False]
    assert counts(database) == {"installation": 1, "instance": 1, "origin": 1}
    remove(database, two, 1)
    assert counts(database) == {"installation": 1}
    # an owner is known, or another origin begins here
    come(database, three, two, 0, "p-1")
    come(database, two, one, 0, None)
    remove(database, two)
    assert counts(database)["instance"] == 2
    remove(database, three)
    assert counts(database) == {"installation": 1, "project": 1, "instance": 1}
    with pytest.raises(
        OriginNotFound, match=r"the volume v-2 .* has no origin since 2026-11-21T12"
    ):
        remove(database, three)


def test_an_ended_source_of_a_removed_origin_stays_ended(database: Database) -> None:
    come(database, volume("v-2"), volume("v-1"), 0, None)
    end(database, volume("v-1"), volume("v-2"))
    remove(database, volume("v-2"))
    assert counts(database) == {"installation": 1, "instance": 2}


def test_pages_continue_after_a_removed_origin(database: Database) -> None:
    for number in range(4):
        come(database, volume(f"v-{number}"), None, number // 2, f"p-{number % 2}")
    every = origins.page(database, Filters(), 10, None).items
    assert [one.instance_id for one in every] == ["v-3", "v-2", "v-1", "v-0"]
    remove(database, volume("v-3"), 1)
    following = origins.page(database, Filters(), 10, OriginPosition(at(1), NOVA, "v-3", "volume"))
    assert following.items == every[1:]
    come(database, volume("v-3"), None, 1)
    after = OriginPosition(at(1), NOVA, "v-3", "volume")
    assert origins.page(database, Filters(), 2, after).items == every[1:3]
    # an unknown position, and one that the project does not see, list the whole time again
    unknown = OriginPosition(at(1), NOVA, "v-9", "volume")
    assert origins.page(database, Filters(), 9, unknown).items == every
    hidden = origins.page(database, Filters(visible_to="p-0"), 9, after).items
    assert [one.instance_id for one in hidden] == ["v-2", "v-0"]


def test_concurrent_reports_of_a_start_and_an_origin_give_the_same_links(
    pair: tuple[Database, Database],
) -> None:
    """Each of the transactions begins before the others end."""
    database, other = pair
    for number in range(6):
        base, made = image_id(), image_id()
        refs = [volume(f"v-{number}-{n}") for n in range(3)]
        come(database, refs[1], None, 0)
        told: list[Callable[[Database], object]] = [
            partial(relate, ref=refs[0], image=base, kind="boot"),
            partial(come, ref=refs[1], source=refs[0], minutes=1),
            partial(come, ref=refs[2], source=refs[1], minutes=2),
            partial(relate, ref=refs[2], image=made, kind="snapshot", created_at=at(5)),
        ]
        random.shuffle(told)
        both = (database, other, database, other)
        threads = [
            threading.Thread(target=one, args=[on]) for one, on in zip(told, both, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert database.read(links)[made] == (base, "p-1")


def test_a_claim_of_a_server_with_an_origin_has_a_parent(database: Database) -> None:
    base, made = image_id(), image_id()
    relate(database, volume("v-1"), base, "boot")
    come(database, server("vm-1"), volume("v-1"))
    database.write(record_claims, new("vm-1", made, created_at=at(5)))
    assert database.read(links) == {made: (base, "p-1")}


def test_origins_follow_a_merged_installation(database: Database) -> None:
    base, made = image_id(), image_id()
    old = [InstanceRef(OTHER_NOVA, f"v-{number}", "volume") for number in range(3)]
    relate(database, old[0], base, "boot", installation_uuid=OTHER_NOVA)
    relate(database, volume("v-0"), image_id(), "snapshot")
    for source, ref in itertools.pairwise(old):
        come(database, ref, source, 1)
    come(database, volume("v-1"), volume("v-2"), 0)
    come(database, volume("v-1"), None, 1)
    come(database, volume("v-1"), old[1], 2)
    relate(database, old[2], made, "snapshot", created_at=at(5), installation_uuid=OTHER_NOVA)
    assert database.read(links) == {made: (base, "p-1")}
    merge.merge(database, OTHER_NOVA, NOVA)
    every = origins.page(database, Filters(), 10, None).items
    # of two origins with the same time, that of the new installation remains
    assert {(one.instance, one.source, one.since) for one in every} == {
        (volume("v-2"), volume("v-1"), at(1)),
        (volume("v-1"), None, at(1)),
        (volume("v-1"), volume("v-2"), at(0)),
    }
    assert made not in database.read(links)
    come(database, volume("v-1"), volume("v-0"), 0.5)
    assert usages.usages(database, [base], None) == [Usage(base, 3, 3, state=USED)]


@pytest.mark.parametrize("ref", [server("vm-1"), volume("v-1")])
def test_origins_are_followed_only_from_other_resources_than_servers(
    database: Database, ref: InstanceRef
) -> None:
    base, sent = image_id(), list[str]()
    relate(database, ref, base, "boot")
    end(database, ref)

    def asked(connection: Connection, task: Callable[..., object], *values: object) -> int:
        sent.clear()
        event.listen(connection, "before_cursor_execute", remember)
        task(connection, *values)
        event.remove(connection, "before_cursor_execute", remember)
        return len(sent)

    def remember(*given: Any) -> None:
        sent.append(given[2])

    only = ref.resource_type == "server"
    assert database.read(asked, usages._usages, [base], None) == (1 if only else 2)
    (found,) = database.read(lambda on: on.execute(select(image.c.id)).one())
    assert database.read(asked, delete_protection._use, found, None, ("server", "volume")) == (
        1 if only else 2
    )


@pytest.mark.parametrize("batch", [2, 1000])
def test_all_resources_between_an_image_and_its_parent_are_found(
    database: Database, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(parent_links, "BATCH", batch)
    base, made, chain = image_id(), image_id(), [volume(f"v-{number}") for number in range(5)]
    relate(database, chain[0], base, "boot")
    for source, ref in itertools.pairwise([*chain, server("vm-1")]):
        come(database, ref, source, 1)
    relate(database, server("vm-1"), made, "snapshot", created_at=at(9))
    (link,) = lineage.ancestry(database, made, 10, None, None).links
    assert link.parent_image_id == base
    assert lineage.via(database, [link]) == {link: (*chain, server("vm-1"))}
