"""The usage of images."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event

from related_images.db import relations
from related_images.db.database import Database
from related_images.db.usages import PART, _used_by_others, ever_used, usages
from related_images.model import UNUSED, USED, Usage
from tests.db.samples import at, found, image_id, new, record, server


def start(database: Database, instance: str, image: str, project: str = "p-1") -> None:
    record(database, new(instance, image, "boot", project_id=project))


def end(database: Database, instance: str, time: datetime) -> None:
    assert database.write(relations.end_instance, server(instance), time)


def test_instances_are_counted_until_they_end(database: Database) -> None:
    base, other, unknown = image_id(), image_id(), image_id()
    for instance in ("vm-1", "vm-2", "vm-3"):
        start(database, instance, base)
    start(database, "vm-4", other)
    record(database, new("vm-1", other, "backup"))
    end(database, "vm-2", at(5))
    asked = [other, unknown, base]
    assert usages(database, asked, None) == [
        Usage(other, 1, 1, made_from=1, state=USED),
        Usage(unknown),
        Usage(base, 3, 2, state=USED),
    ]
    assert sorted(ever_used(database, asked)) == sorted([other, base])


def test_the_resources_that_an_image_was_made_from_are_counted(database: Database) -> None:
    one, two = image_id(), image_id()
    for kind in ("snapshot", "backup"):
        record(database, new("vm-1", one, kind, project_id="p-1"))
    record(database, new("vm-1", two, "backup", project_id="p-1"))
    record(database, new("vm-2", two, "snapshot", project_id="p-1"))
    for project in (None, "p-1"):
        assert [usage.made_from for usage in usages(database, [two, one], project)] == [2, 1]
    assert [usage.made_from for usage in usages(database, [two, one], "p-2")] == [0, 0]


def test_images_of_several_statements_are_counted(database: Database) -> None:
    base = image_id()
    start(database, "vm-1", base)
    asked = [*(image_id() for _ in range(PART)), base]
    found = usages(database, asked, None, {base: "p-2"})
    assert [usage.image_id for usage in found] == asked
    assert found[-1] == Usage(base, 1, 1, used_by_others=True, state=USED)
    assert found[0] == Usage(asked[0], used_by_others=False, state=UNUSED)
    assert ever_used(database, asked) == [base]


def test_the_end_of_the_last_use_is_reported(database: Database) -> None:
    base = image_id()
    for minute, instance in ((7, "vm-1"), (9, "vm-2"), (8, "vm-3")):
        start(database, instance, base)
        end(database, instance, at(minute))
    assert usages(database, [base], None) == [Usage(base, 3, 0, at(9))]


def test_a_rebuilt_instance_uses_both_images(database: Database) -> None:
    before, after = image_id(), image_id()
    start(database, "vm-1", before)
    start(database, "vm-1", after)
    assert [row.live_instances for row in usages(database, [before, after], None)] == [1, 1]


def test_a_project_counts_the_starts_that_it_sees(database: Database) -> None:
    base = image_id()
    start(database, "vm-1", base, "p-1")
    start(database, "vm-2", base, "p-2")
    end(database, "vm-2", at(3))
    assert usages(database, [base], "p-1") == [Usage(base, 1, 1, state=USED)]
    assert usages(database, [base], "p-2") == [Usage(base, 1, 0, at(3))]
    assert usages(database, [base], "p-3") == [Usage(base)]


def used_by_others(database: Database, **owners: str | None) -> set[str]:
    """Return the names of the images that others use."""
    named = {IMAGES[name]: owner for name, owner in owners.items()}
    found = database.read(_used_by_others, named)
    return {name for name, id in IMAGES.items() if id in found}


IMAGES = {name: image_id() for name in ("base", "other", "idle", "unknown")}


def test_live_instances_of_others_are_found(database: Database) -> None:
    start(database, "vm-1", IMAGES["base"], "p-1")
    start(database, "vm-2", IMAGES["other"], "p-2")
    record(database, new("vm-1", IMAGES["other"], "backup", project_id="p-1"))
    start(database, "vm-3", IMAGES["idle"], "p-2")
    end(database, "vm-3", at(3))
    record(database, new("vm-4", IMAGES["unknown"], "boot", project_id=None))
    every = dict.fromkeys(IMAGES, "p-1")
    assert used_by_others(database, **every) == {"other", "unknown"}
    assert used_by_others(database, **dict.fromkeys(IMAGES, "p-2")) == {"base", "unknown"}
    assert used_by_others(database, **dict.fromkeys(IMAGES, "never-heard-of")) == (
        {"base", "other", "unknown"}
    )
    assert used_by_others(database, base="p-1", other="p-2", unknown=None) == {"unknown"}
    assert used_by_others(database, base=None) == {"base"}
    assert used_by_others(database) == set()


def test_an_instance_of_the_image_owner_is_not_one_of_others(database: Database) -> None:
    """The reported owner of the instance counts, as in the numbers of that project."""
    boot = new("vm-1", IMAGES["base"], "boot", project_id="p-2", instance_project_id="p-1")
    record(database, boot)
    for project, live in (("p-1", 1), ("p-2", 0)):
        (row,) = usages(database, [IMAGES["base"]], project)
        assert row.live_instances == live
        assert used_by_others(database, base=project) == (set() if live else {"base"})


def test_relations_are_found_by_use(database: Database) -> None:
    base = image_id()
    for instance in ("vm-1", "vm-2"):
        start(database, instance, base)
    record(database, new("vm-1"))
    end(database, "vm-2", at(3))
    assert found(database, in_use=True) == [("vm-1", "boot")]
    assert sorted(found(database, in_use=False)) == [("vm-1", "snapshot"), ("vm-2", "boot")]
    assert found(database, in_use=True, visible_to="p-2") == []


@pytest.mark.parametrize("project", [None, "p-1"])
def test_the_instances_of_a_project_are_read_once(database: Database, project: str | None) -> None:
    base = image_id()
    start(database, "vm-1", base)
    sent: list[str] = []

    def remember(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    engine = database._engine(0)
    event.listen(engine, "before_cursor_execute", remember)
    usages(database, [base], project)
    event.remove(engine, "before_cursor_execute", remember)
    of_project = [one for one in sent if "related_instance.project_ref = " in one]
    assert len(of_project) == (0 if project is None else 1)
