"""``server image list`` and ``server backup list``."""

from collections import Counter

import pytest

from related_images.client import GlanceError, NotInstanceAware
from related_images.osc import server_image
from related_images.osc.image_relation import CreateRelation
from related_images.osc.server_backup import ListServerBackup
from related_images.osc.server_image import ListServerImage
from tests.client.clients import INSTALLATION
from tests.client.scripted import Scripted, shown
from tests.osc.running import Cloud, Instance
from tests.servers import ServedGlance


def test_images_of_an_instance(instance: Instance, member: Cloud) -> None:
    snapshot = instance.image("monday")
    backup = instance.fill(instance.image("tuesday", kind="backup", label="daily"))
    listed = member.listed(ListServerImage, "--sort", "name:asc", instance.id)
    first, second = listed.rows
    assert first.pop("Created At").endswith("Z")
    assert first == {
        "ID": snapshot,
        "Name": "monday",
        "Kind": "snapshot",
        "Label": None,
        "Status": "queued",
    }
    assert (second["ID"], second["Kind"], second["Label"]) == (backup, "backup", "daily")
    (long,) = member.listed(ListServerImage, "--long", "--kind", "backup", instance.id).rows
    assert (long["Size"], long["Disk Format"], long["Project ID"]) == (4, "raw", instance.project)


def test_an_image_with_two_relations(instance: Instance, recorder: Cloud) -> None:
    image_id = instance.image("both", kind="backup", label="daily")
    recorder.run(CreateRelation, "--kind", "snapshot", instance.id, image_id)
    (row,) = recorder.listed(ListServerImage, instance.id).rows
    assert (row["Kind"], row["Label"]) == ("backup, snapshot", "daily")


def test_filters(instance: Instance, member: Cloud) -> None:
    snapshot = instance.image("monday")
    daily = instance.fill(instance.image("tuesday", kind="backup", label="daily"))
    weekly = instance.image("wednesday", kind="backup", label="weekly")

    def found(*arguments: str) -> set[str]:
        return set(member.listed(ListServerImage, *arguments, instance.id).column("ID"))

    assert found() == {snapshot, daily, weekly}
    assert found("--kind", "backup") == {daily, weekly}
    assert found("--kind", "boot") == set()
    assert found("--label", "daily") == found("--status", "active") == {daily}
    assert found("--project", instance.project) == {snapshot, daily, weekly}
    assert found("--project", "another") == set()
    assert member.listed(ListServerImage, "--sort", "name", "--limit", "2", instance.id).column(
        "ID"
    ) == [weekly, daily]


def test_a_sort_key_that_glance_does_not_have(instance: Instance, member: Cloud) -> None:
    instance.image("monday")
    with pytest.raises(GlanceError, match=r"answered 400.*colour"):
        member.listed(ListServerImage, "--sort", "colour", instance.id)


def test_images_of_all_servers(instance: Instance, member: Cloud) -> None:
    here = instance.image("monday", kind="backup", label="daily")
    there = instance.elsewhere().image("tuesday")
    boot = instance.image("base")
    listed = member.listed(ListServerImage, "--all", "--sort", "created_at:asc")
    rows = {row["ID"]: (row["Kind"], row["Label"], row["Server ID"]) for row in listed.rows}
    assert rows[here] == ("backup", "daily", instance.id)
    assert rows[there] == rows[boot] == ("snapshot", None, instance.id)
    of_one = ("--all", "--installation", instance.installation)
    assert set(member.listed(ListServerImage, *of_one).column("ID")) == {here, boot}
    assert set(member.listed(ListServerBackup, *of_one).column("ID")) == set()
    assert here in member.listed(ListServerImage, "--all", "--label", "daily").column("ID")
    assert len(member.listed(ListServerImage, "--all", "--limit", "1").rows) == 1
    instance.fill(here)
    assert here in member.listed(ListServerBackup, "--all").column("ID")
    other = Cloud(instance.glance.url, "mallory:evil:member")
    assert other.listed(ListServerImage, "--all").rows == []


def test_the_images_of_other_installations_are_not_read(
    instance: Instance, member: Cloud, monkeypatch: pytest.MonkeyPatch, sent: Counter[str]
) -> None:
    here = instance.image("monday")
    for number in range(3):
        instance.elsewhere().image(f"{number}")
    monkeypatch.setattr(server_image, "PAGE", 1)
    of_one = ("--all", "--installation", instance.installation)
    assert member.listed(ListServerImage, *of_one).column("ID") == [here]
    assert sent["GET /v2/images"] <= 2


@pytest.mark.parametrize("arguments", [(), ("--all", "web-1")])
def test_a_server_or_all_servers_are_named(
    member: Cloud, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        member.listed(ListServerImage, *arguments)
    assert "--all" in capsys.readouterr().err


def test_backups_are_those_that_can_be_restored(instance: Instance, member: Cloud) -> None:
    instance.fill(instance.image("monday"))
    instance.image("tuesday", kind="backup", label="daily")
    daily, weekly = (
        instance.fill(instance.image(label, kind="backup", label=label))
        for label in ("daily", "weekly")
    )
    listed = member.listed(ListServerBackup, "--sort", "name:asc", instance.id)
    assert listed.column("ID") == [daily, weekly]
    assert listed.column("Label") == ["daily", "weekly"]
    assert listed.column("Size") == [4, 4]
    weekly_ones = member.listed(ListServerBackup, "--label", "weekly", "--long", instance.id)
    assert weekly_ones.column("ID") == [weekly]


def test_a_server_id_in_two_installations(instance: Instance, member: Cloud) -> None:
    here, there = instance.image("here"), instance.elsewhere()
    assert member.listed(ListServerImage, instance.id).column("ID") == [here]
    elsewhere = there.image("there")
    with pytest.raises(Exception, match="more than one installation with a server") as refused:
        member.listed(ListServerImage, instance.id)
    for installation in (instance.installation, there.installation):
        assert installation in str(refused.value)
    chosen = ("--installation", there.installation, instance.id)
    assert member.listed(ListServerImage, *chosen).column("ID") == [elsewhere]


def test_an_unknown_server(instance: Instance, member: Cloud) -> None:
    with pytest.raises(Exception, match=r"no installation with a server.*give --installation"):
        member.listed(ListServerImage, instance.id)
    chosen = ("--installation", instance.installation, instance.id)
    assert member.listed(ListServerImage, *chosen).rows == []


def test_a_server_of_another_project(instance: Instance) -> None:
    instance.image("monday")
    other = Cloud(instance.glance.url, "mallory:evil:member")
    with pytest.raises(Exception, match="no installation with a server"):
        other.listed(ListServerImage, instance.id)


def test_without_the_filter_nothing_is_listed(plain_glance: ServedGlance) -> None:
    plain = Cloud(plain_glance.url, "alice:demo:member")
    for command in (ListServerImage, ListServerBackup):
        for arguments in (("web-1",), ("--installation", INSTALLATION, "web-1")):
            with pytest.raises(NotInstanceAware, match="install related-images there"):
                plain.listed(command, *arguments)


def test_a_list_that_glance_did_not_filter_is_refused(scripted: Scripted) -> None:
    scripted.script = lambda asked: shown({"images": [{"id": "not its own"}], "relations": []})
    with pytest.raises(NotInstanceAware, match="is not used"):
        Cloud(scripted.url, "t").listed(ListServerImage, "--installation", INSTALLATION, "web-1")
