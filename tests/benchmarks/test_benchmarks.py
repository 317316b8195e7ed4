"""The benchmarks run, compare equal results and check their aims; no test depends on a duration."""

import json
from pathlib import Path

import pytest

from benchmarks import filling, layouts, report
from benchmarks.__main__ import PARTS, measure
from benchmarks.databases import Databases
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, Spread, in_turns
from benchmarks.sizes import Sizes
from benchmarks.table_layouts import LAYOUTS
from related_images.db import Filters, image_list, instances, listing
from related_images.db.database import Database
from related_images.model import MADE_FROM, SERVER, InstanceRef

TINY = Sizes(
    images=(100,),
    relations=(100, 200),
    overdue=200,
    rows=200,
    posts=1,
    rounds=1,
    databases=("sqlite",),
    upkeep=(210,),
    stream=1,
    backups=(20, 8),
    quick=True,
)
TRIED = ("own-routes", "space", "image-list", "image-list-by-relation", "upkeep", "backups")
"""Parts that together use all functions that fill and query databases."""


def result(value: float, aim: Aim | None) -> Result:
    one = Spread(1.0, 1.0, 1.0, 3)
    return Result("this", "that", "10", "ms", one, one, value, aim=aim, curve=("this", 10))


@pytest.mark.slow
@pytest.mark.parametrize("part", TRIED)
def test_a_part_measures(part: str) -> None:
    assert part in PARTS
    results: list[Result] = []
    measure([part], TINY, results)
    assert results
    assert all(one.ours.median > 0 and one.theirs.median > 0 for one in results)


@pytest.mark.parametrize(
    ("value", "aim", "verdict"),
    [
        (1.0, Aim(1.1), "met"),
        (1.65, Aim(1.1), "missed by 50%"),
        (40, Aim(40, at_least=True), "met"),
        (30, Aim(40, at_least=True), "missed by 25%"),
        (1.0, None, ""),
    ],
)
def test_a_verdict_states_by_how_much_an_aim_is_missed(
    value: float, aim: Aim | None, verdict: str
) -> None:
    assert result(value, aim).verdict == verdict


def test_sides_alternate_after_a_warm_up_round() -> None:
    done: list[str] = []
    taken = in_turns({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2)
    assert done == ["a", "b"] * 3
    assert {spread.rounds for spread in taken.values()} == {2}


def test_the_first_round_counts_if_it_takes_all_the_time() -> None:
    done: list[str] = []
    taken = in_turns({"a": lambda: done.append("a")}, 2, budget=0)
    assert done == ["a"]
    assert taken["a"].rounds == 1


def test_a_report_describes_the_machine(tmp_path: Path) -> None:
    report.write(tmp_path, [result(1.0, Aim(1.1))], report.machine())
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"][0]["verdict"] == "met"
    assert {"cpu", "cores", "python", "date", "glance"} <= set(written["ran_on"])
    assert "| this | 10 |" in (tmp_path / "results.md").read_text()


def test_filled_tables_give_the_same_results_as_recorded_ones(tmp_path: Path) -> None:
    with Databases(tmp_path) as databases:
        database = Database(databases.filled("sqlite", Cloud(200)), 10.0)
        named = (filling.INSTALLATION, filling.instance_id(7))
        server = InstanceRef(*named)
        found = instances.show(database, server, visible_to=None)
        assert sum(images.count for images in found.images.values()) == filling.PER_INSTANCE
        images = image_list.images(database, Filters(*named, resource_type=SERVER), MADE_FROM)
        assert images is not None
        rows = listing.relations(database, Filters(*named), 100, None).items
        assert sorted(image.image_id for image in images) == sorted(row.image_id for row in rows)
        database.close()


@pytest.mark.slow
def test_all_layouts_give_the_same_results() -> None:
    cloud = Cloud(200)
    with layouts.filled("sqlite", list(LAYOUTS), cloud) as sides:
        shipped = next(iter(sides.values()))
        known, new = (layouts.given(shipped.connection, cloud, n) for n in (57, 201))
        assert all(shipped.answers(known).values())
        assert layouts.differing(sides, known) == []
        for side in sides.values():
            side.recording([new])()
        assert len(shipped.answers(new)["instances of an image"]) == 1
        assert layouts.differing(sides, new) == []


@pytest.mark.slow
def test_layouts_are_compared_in_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layouts, "ROUNDS", 1)
    monkeypatch.setattr(layouts, "RECORDED", 1)
    layouts.main(["--relations", "200", "--databases", "sqlite"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in LAYOUTS]


def test_the_plot_has_both_sides_of_an_image_list_and_other_lines_once() -> None:
    one, other = Spread(1.0, 1.0, 1.0, 3), Spread(2.0, 2.0, 2.0, 3)
    names = ("admin, mariadb", "GET /v2/relations, the newest 100 (mariadb)")
    drawn = [Result("", "", "", "ms", one, other, 2.0, curve=(name, 10)) for name in names]
    assert report.curves(drawn) == {
        "?instance_uuid= by an administrator (mariadb)": [(10, 2.0)],
        "image list by instance headers (mariadb)": [(10, 1.0)],
        "GET /v2/relations, the newest 100 (mariadb)": [(10, 1.0)],
    }
