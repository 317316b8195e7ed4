"""Resources of different types with the same ID."""

from uuid import UUID, uuid5

import pytest
from sqlalchemy import select

from related_images.db import (
    delete_protection,
    image_list,
    instances,
    lineage,
    recording,
    relation_queries,
    relations,
    usages,
)
from related_images.db.database import Database
from related_images.db.tables import installation
from related_images.errors import ImageInUse, InstanceNotFound, TupleMalformed
from related_images.model import (
    MADE_FROM,
    RESOURCE_TYPES,
    USED,
    VOLUME,
    Filters,
    InstanceRef,
    Reporter,
    Usage,
)
from tests.db.samples import NOVA, at, found, image_id, new, of, record, server

REPORTER = Reporter(frozenset({"nova"}))
VOLUME_1 = InstanceRef(NOVA, "vm-1", VOLUME)


def images(database: Database, ref: InstanceRef) -> list[str]:
    shown = image_list.images(database, of(ref), MADE_FROM) or []
    return [image.image_id for image in shown]


def test_each_type_has_relations_of_its_own(database: Database) -> None:
    image = image_id()
    for number, resource_type in enumerate(RESOURCE_TYPES):
        record(database, new("vm-1", image, created_at=at(number), resource_type=resource_type))
    rows = database.read(relation_queries.find, Filters(NOVA, "vm-1"), 10)
    assert [row.resource_type for row in rows] == list(reversed(RESOURCE_TYPES))
    assert {row.installation_uuid for row in rows} == {NOVA}
    for resource_type in RESOURCE_TYPES:
        (row,) = database.read(
            relation_queries.find, Filters(resource_type=resource_type, image_id=image), 10
        )
        assert row.instance == InstanceRef(NOVA, "vm-1", resource_type)


def test_a_list_of_one_instance_holds_its_type_alone(database: Database) -> None:
    of_server, of_volume = image_id(), image_id()
    record(database, new("vm-1", of_server), new("vm-1", of_volume, resource_type=VOLUME))
    assert images(database, server("vm-1")) == [of_server]
    assert images(database, VOLUME_1) == [of_volume]
    assert images(database, InstanceRef(NOVA, "vm-1", "volume-backup")) == []


def test_instances_of_all_types_are_listed_with_their_types(database: Database) -> None:
    record(database, new("vm-1"), new("vm-1", resource_type=VOLUME), new("vm-2"))
    listed = instances.page(database, Filters(NOVA), 10, None, None).items
    assert [one.instance for one in listed] == [server("vm-1"), VOLUME_1, server("vm-2")]
    servers = instances.page(database, Filters(NOVA, resource_type="server"), 10, None, None)
    assert [one.instance for one in servers.items] == [server("vm-1"), server("vm-2")]
    volumes = instances.page(database, Filters(resource_type=VOLUME), 10, None, None)
    assert [one.instance for one in volumes.items] == [VOLUME_1]


def test_overdue_instances_are_listed_by_type(database: Database) -> None:
    record(database, new("vm-1", kind="backup"), new("vm-1", kind="backup", resource_type=VOLUME))
    for resource_type in ("server", VOLUME):
        filters = Filters(kind="backup", resource_type=resource_type)
        assert instances._knows_latest(filters)
        (late,) = instances.page(database, filters, 10, None, at(1)).items
        assert late.resource_type == resource_type
        assert instances.page(database, filters, 10, None, at(-1)).items == []


def test_one_type_ends_without_the_other(database: Database) -> None:
    record(database, new("vm-1"), new("vm-1", resource_type=VOLUME))
    recording.end_instance(database, VOLUME_1, REPORTER)
    assert instances.show(database, VOLUME_1, None).ended_at is not None
    assert instances.show(database, server("vm-1"), None).ended_at is None
    with pytest.raises(InstanceNotFound, match="the volume-snapshot vm-1 of installation"):
        instances.show(database, InstanceRef(NOVA, "vm-1", "volume-snapshot"), None)


def test_one_type_is_detached_and_revoked_without_the_other(database: Database) -> None:
    image = image_id()
    for resource_type in ("server", VOLUME):
        wanted = new("vm-1", image, "backup", resource_type=resource_type)
        recording.attach(database, wanted, REPORTER)
    recording.detach(database, VOLUME_1, image, "backup", REPORTER)
    (row,) = database.read(relation_queries.find, Filters(image_id=image), 10)
    assert row.instance == server("vm-1")
    recording.revoke(database, server("vm-1"), image, "backup", REPORTER, row.created_at)
    assert found(database, image_id=image) == []


def test_a_rollback_removes_the_relation_of_the_same_type(database: Database) -> None:
    image = image_id()
    record(database, new("vm-1", image))
    announced = recording.announce(database, new("vm-1", image, resource_type=VOLUME), REPORTER)
    assert recording.withdraw(database, announced)
    (row,) = database.read(relation_queries.find, Filters(image_id=image), 10)
    assert row.resource_type == "server"


def test_volumes_use_an_image_and_protect_it(database: Database) -> None:
    base = image_id()
    record(database, new("vm-1", base, "boot"), new("vm-1", base, "boot", resource_type=VOLUME))
    assert usages.usages(database, [base], None) == [Usage(base, 2, 2, state=USED)]
    with pytest.raises(ImageInUse, match=r"1 live server \(vm-1 .*\) and 1 live volume \(vm-1 "):
        delete_protection.begin(database, base, None, forced=False)
    database.write(relations.end_instance, server("vm-1"), at(1))
    assert usages.usages(database, [base], None) == [Usage(base, 2, 1, state=USED)]
    with pytest.raises(ImageInUse, match=r"used by 1 live volume \(vm-1 of "):
        delete_protection.begin(database, base, None, forced=False)


def test_lineage_leads_through_the_resource_of_the_same_type(database: Database) -> None:
    base, other, made = image_id(), image_id(), image_id()
    record(
        database,
        new("vm-1", base, "boot", resource_type=VOLUME),
        new("vm-1", other, "boot"),
        new("vm-1", made, created_at=at(1), resource_type=VOLUME),
    )

    (link,) = lineage.ancestry(database, made, 10, None, None).links
    assert (link.parent_image_id, link.resource_type, link.instance_id) == (base, VOLUME, "vm-1")


def test_the_uuid_of_a_row_for_volumes_is_not_accepted_as_an_installation(
    database: Database,
) -> None:
    record(database, new("vm-1", resource_type=VOLUME))
    of_volumes = select(installation.c.uuid).where(installation.c.resource_type == VOLUME)
    uuid = database.read(lambda connection: connection.execute(of_volumes).scalar_one())
    with pytest.raises(TupleMalformed, match="is reserved by this service"):
        record(database, new("vm-1", installation_uuid=uuid))
    assert found(database, installation_uuid=uuid) == []
    assert images(database, InstanceRef(uuid, "vm-1")) == []
    assert instances.page(database, Filters(uuid), 10, None, None).items == []


@pytest.mark.parametrize("resource_type", RESOURCE_TYPES)
def test_another_installation_does_not_take_the_uuid_of_a_type(
    database: Database, resource_type: str
) -> None:
    """The UUID of the row for a type is not computed, so that nobody can use it before."""
    for name in (resource_type, f"related-images/{resource_type}"):
        derived = str(uuid5(UUID(NOVA), name))
        record(database, new("vm-1", installation_uuid=derived))
    record(database, new("vm-1", resource_type=resource_type))
    (row,) = database.read(relation_queries.find, Filters(NOVA), 10)
    assert row.instance == InstanceRef(NOVA, "vm-1", resource_type)


def test_the_type_of_a_newer_version_is_shown(database: Database) -> None:
    record(database, new("stack-1", resource_type="stack"))
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert row.instance == InstanceRef(NOVA, "stack-1", "stack")
