"""The number of requests of commands on many servers, and equality with the way for one server."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from keystoneauth1.adapter import Adapter
from sqlalchemy import create_engine, update

from benchmarks import filling
from benchmarks.backups import Served
from benchmarks.filling import Cloud as Filling
from related_images import validation
from related_images.client import glance as client_glance
from related_images.client import image_relations
from related_images.client.backups import (
    Ages,
    Inventory,
    OverdueSearch,
    backup_images,
    newest,
    overdue,
)
from related_images.client.backups.newest import NewestBackup, NewestBackups
from related_images.client.backups.retention import Backup
from related_images.client.image_relations import ImageRelations
from related_images.db.column_types import EPOCH
from related_images.db.tables import image
from related_images.model import Relation
from related_images.osc import server_image
from related_images.osc.image_usage import ListImageUsage
from related_images.osc.server_backup_overdue import OverdueServerBackup
from related_images.osc.server_backup_prune import PruneServerBackup
from related_images.osc.server_image import ListServerImage
from tests.client.clients import session
from tests.osc.aging import age
from tests.osc.compute import Compute
from tests.osc.running import Cloud, Instance
from tests.osc.test_server_backup import change, relate
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

ADMIN = "root:administration:admin"
FILLED = Filling(24 * 14, 14)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGlance]:
    """A Glance with 24 servers of 24 projects, each with 14 active backups."""
    with Served(tmp_path_factory.mktemp("filled") / "glance", FILLED) as served:
        yield served


def test_prune_reads_pages(filled: ServedGlance, sent: Counter[str]) -> None:
    scope = ("--all-projects", "--keep-last", "7", "--dry-run")
    outcome = Cloud(filled.url, ADMIN).listed(PruneServerBackup, *scope)
    assert Counter(outcome.column("Action")) == {"keep": 24 * 7, "remove": 24 * 7}
    assert sent == {
        "GET /v2/info/relations": 1,
        "GET /v2/instances": 1,
        "GET /v2/relations": 1,
        "GET /v2/images": 1,
        "POST /v2/usages": 1,
    }


def test_prune_of_one_server_reads_no_page_for_each_image(
    filled: ServedGlance, sent: Counter[str]
) -> None:
    arguments = (filling.instance_id(7), "--keep-last", "7", "--dry-run")
    outcome = Cloud(filled.url, ADMIN).listed(PruneServerBackup, *arguments)
    assert len(outcome.rows) == 14
    path = f"GET /v2/instances/{filling.INSTALLATION}/{filling.instance_id(7)}"
    assert sent == {
        "GET /v2/info/relations": 1,
        "GET /v2/instances": 1,
        path: 1,
        "GET /v2/relations": 1,
        "GET /v2/images": 2,
        "GET /v2/usages": 1,
    }


def test_prune_by_stored_policies_reads_pages(
    filled: ServedGlance, nova: Compute, sent: Counter[str]
) -> None:
    nova.page = 1000
    found = Inventory(Adapter(session(filled.url, ADMIN), service_type="image"))
    for server in found.instances():
        nova.add(server.instance_id, str(server.project_id), {"keep_last": 7})
    sent.clear()
    scope = ("--all-projects", "--policy", "stored", "--dry-run")
    outcome = Cloud(filled.url, ADMIN, nova.url).listed(PruneServerBackup, *scope)
    assert Counter(outcome.column("Action")) == {"keep": 24 * 7, "remove": 24 * 7}
    versions = ("GET /v2.1", "GET /v2.1/")
    assert {request: number for request, number in sent.items() if request not in versions} == {
        "GET /v2.1/servers/detail": 1,
        "GET /v2/info/relations": 1,
        "GET /v2/instances": 1,
        "GET /v2/relations": 1,
        "GET /v2/images": 1,
        "POST /v2/usages": 1,
    }


@pytest.mark.parametrize("late", [4, 20])
@pytest.mark.parametrize("label", [[], ["--label", "daily"]])
def test_overdue_reads_pages(
    filled: ServedGlance,
    sent: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    late: int,
    label: list[str],
) -> None:
    # the first ones of the last backup of each server are late
    since = filling.BEGIN // 10**6 + 13 * 24 + late
    now = datetime.now(UTC)
    age = now - datetime.fromtimestamp(since, UTC)
    monkeypatch.setattr(
        OverdueServerBackup,
        "_overdue",
        lambda self, args: list(
            OverdueSearch(self.clients.inventory, args.label, now=now).overdue(Ages(age))
        ),
    )
    arguments = ("--older-than", "1h", "--all-projects", *label)
    outcome = Cloud(filled.url, ADMIN).listed(OverdueServerBackup, *arguments)
    assert late - 1 <= len(outcome.rows) <= late + 1
    assert all(outcome.column("Newest Backup"))
    assert set(sent) == {
        *("GET /v2/info/relations", "GET /v2/instances", "GET /v2/relations", "GET /v2/images")
    }
    assert sent.total() <= 7


def test_the_usage_list_reads_pages(filled: ServedGlance, sent: Counter[str]) -> None:
    outcome = Cloud(filled.url, ADMIN).listed(ListImageUsage, "--limit", "3")
    assert len(outcome.rows) == 3
    assert sent == {"GET /v2/info/relations": 1, "GET /v2/images": 2, "POST /v2/usages": 1}


@pytest.mark.parametrize(
    ("arguments", "shown", "most"),
    [
        ([], 24 * 14, 69),
        (["--limit", "4"], 4, 2),
        (["--limit", "20"], 20, 5),
        # the images of the first page of relations are not among these
        (["--limit", "5", "--sort", "created_at:asc", "--kind", "backup"], 5, 7),
        (["--limit", "2", "--sort", "created_at:asc"], 2, 8),
    ],
)
def test_the_image_list_of_all_servers_reads_relations_of_the_shown_images(
    filled: ServedGlance,
    sent: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    shown: int,
    most: int,
) -> None:
    for module in (server_image, image_relations):
        monkeypatch.setattr(module, "PAGE", 10)
    # the relations of this cloud are a second apart
    monkeypatch.setattr(validation, "CLOCK_SKEW", timedelta(seconds=1))
    outcome = Cloud(filled.url, ADMIN).listed(ListServerImage, "--all", *arguments)
    assert len(outcome.rows) == shown
    assert set(outcome.column("Kind")) == {"backup"}
    assert all(outcome.column("Server ID"))
    assert set(sent) == {"GET /v2/info/relations", "GET /v2/relations", "GET /v2/images"}
    assert sent.total() - 1 <= most


@dataclass(frozen=True)
class World:
    """Servers with random backups.

    :ivar instance: one of the servers
    :ivar callers: tokens, with the project to whose images the search is limited
    """

    instance: Instance
    callers: list[tuple[str, str | None]]


@pytest.fixture(scope="module")
def world(glance: ServedGlance) -> World:
    """24 servers of one installation with random backups in three projects."""
    chance = random.Random(20)
    name = uuid4().hex[:8]
    first = Instance(glance, str(uuid4()), f"web-{name}", f"project-{name}")
    servers = [replace(first, id=f"{first.id}-{number}") for number in range(24)]
    made = [
        (replace(server, project=f"{first.project}{chance.choice(['', '', '', '-b', '-c'])}"), n)
        for server in servers
        for n in range(chance.choice([0, 1, 3, 5]))
    ]

    def make(index: int) -> tuple[str, float]:
        (server, _), own = made[index], random.Random(index)
        label = {"label": own.choice(["daily", "weekly"])} if own.random() < 0.9 else {}
        image_id = server.image(f"{index}", kind="backup", **label)
        if own.random() < 0.85:
            server.fill(image_id)
        return image_id, own.randrange(-1, 9) + own.random()

    with ThreadPoolExecutor(4) as pool:
        times = list(pool.map(make, range(len(made))))
    age(first, dict(times))
    for (server, _), (image_id, _) in zip(made, times, strict=True):
        for odds, change_it in CHANGES:
            if chance.random() < odds:
                change_it(server, servers, image_id, chance)
    for server in servers[::7]:
        path = f"/v2/instances/{server.installation}/{server.id}"
        glance.request("DELETE", path, server.recorder)
    forget_times(first, [image_id for image_id, _ in times[::9]])
    return World(
        first,
        [
            (first.member, None),
            (first.member, first.project),
            (ADMIN, None),
            (ADMIN, first.project),
            (f"bob:{first.project}-b:member", None),
        ],
    )


def forget_times(instance: Instance, image_ids: list[str]) -> None:
    """Forget when the images were created, as if a version before creation times recorded them."""
    engine = create_engine(f"sqlite:///{instance.glance.directory}/related-images.db")
    with engine.begin() as connection:
        known = update(image).where(image.c.uuid.in_(image_ids))
        connection.execute(known.values(created_at=EPOCH))


Change = Callable[[Instance, list[Instance], str, random.Random], object]
CHANGES: list[tuple[float, Change]] = [
    (0.1, lambda server, _, id, __: change(server, id, "protected", True)),
    (0.1, lambda server, _, id, __: change(server, id, "visibility", "community")),
    (0.15, lambda server, _, id, __: change(server, id, "os_hidden", True)),
    (
        0.1,
        lambda server, all_, id, chance: relate(
            replace(chance.choice(all_), project=server.project), id, "snapshot"
        ),
    ),
    (
        0.1,
        lambda server, _, id, chance: relate(
            server.another(), id, "boot", instance_project_id=chance.choice([server.project, "x"])
        ),
    ),
    (0.05, lambda server, _, id, __: server.glance.request("DELETE", f"/v2/images/{id}", ADMIN)),
]


@pytest.fixture(params=["pages", "single requests", "as they are worth it"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read from pages as long as there are some, never, or while they are worth it."""
    found: str = request.param
    if found != "as they are worth it":
        for module in (client_glance, backup_images, newest, overdue):
            monkeypatch.setattr(module, "is_worth_a_page", lambda *_: found == "pages")
    return found


def inventory(world: World, token: str) -> Inventory:
    return Inventory(Adapter(session(world.instance.glance.url, token), service_type="image"))


def backups_of_world(found: Inventory, world: World, **filters: Any) -> Any:
    installation = world.instance.installation
    return list(found.instances(installation_uuid=installation, **filters))


@pytest.mark.parametrize("label", [None, "daily"])
def test_the_backups_of_many_servers_are_those_of_each(
    world: World, way: str, label: str | None
) -> None:
    total = 0
    for token, project in world.callers:
        found = inventory(world, token)
        servers = backups_of_world(found, world, project_id=project, label=label)
        joined = found.backups_of_servers(servers, label, project)
        for server in servers:
            expected = by_id(found.backups(server, label))
            # a server may be left out, and is then read by itself
            assert by_id(joined.get(server.instance, list(expected.values()))) == expected
            total += len(expected)
        assert len(joined) >= len(servers) / 2
    assert total > (100 if label is None else 30)


def by_id(backups: list[Backup]) -> dict[str, Backup]:
    found = {backup.image_id: backup for backup in backups}
    assert len(found) == len(backups)
    return found


@pytest.mark.parametrize("label", [None, "daily"])
def test_the_newest_backups_of_many_servers_are_those_of_each(
    world: World, way: str, label: str | None
) -> None:
    total = 0
    for token, project in world.callers:
        found = inventory(world, token)
        servers = {it.instance: it for it in backups_of_world(found, world, project_id=project)}
        search = NewestBackups(found, label, project)
        newest = search.of(servers)
        for ref in servers:
            each = search._of_one(ref)
            expected = max(each, key=lambda it: (it.made_at, it.image_id), default=None)
            assert same_time(newest.get(ref)) == same_time(expected)
        total += len(newest)
    assert total > 20


@pytest.mark.parametrize("page", [7, 1000])
@pytest.mark.parametrize("kind", [None, "snapshot"])
@pytest.mark.parametrize("sort", ["created_at:desc", "created_at:asc", "name:asc"])
def test_the_relations_of_listed_images_are_all_of_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int, kind: str | None, sort: str
) -> None:
    monkeypatch.setattr(image_relations, "PAGE", page)
    total = 0
    for token, project in world.callers:
        client = inventory(world, token).relations
        expected: dict[str, set[Relation]] = defaultdict(set)
        for relation in client.relations(resource_type="server", kind=kind, project_id=project):
            if relation.kind != "boot" and relation.image_deleted_at is None:
                expected[relation.image_id].add(relation)
        owned: dict[str, Any] = {} if project is None else {"owner": project}
        images = list(client.images(resource_type="server", kind=kind, sort=sort, **owned))
        relations = ImageRelations(client, kind, resource_type="server", project_id=project)
        found = [(image.id, set(its)) for image, its in relations.with_relations(images)]
        assert found == [(image.id, expected[image.id]) for image in images]
        total += len(found)
    assert total > (5 if kind else 100)


def same_time(backup: NewestBackup | None) -> datetime | None:
    return None if backup is None else backup.made_at


def test_a_backup_that_is_deleted_between_the_pages_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inventory(world, ADMIN)
    servers = backups_of_world(found, world)
    full = found.backups_of_servers(servers)
    gone = {backups[0].image_id for backups in full.values() if backups}
    real = client_glance.Glance.images

    def images(self: Any, *given: Any, **options: Any) -> Any:
        return ((id, it) for id, it in real(self, *given, **options) if id not in gone)

    monkeypatch.setattr(client_glance.Glance, "images", images)
    rest = found.backups_of_servers(servers)
    assert rest.keys() == full.keys()
    for ref, backups in rest.items():
        assert set(backups) == {it for it in full[ref] if it.image_id not in gone}


def test_a_backup_that_is_made_between_the_pages_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = replace(world.instance, id=f"new-{uuid4().hex[:8]}")
    others = [new.another() for _ in range(5)]
    for server in (new, *others):
        server.fill(server.image("1", kind="backup", label="daily"))
    found = inventory(world, new.member)
    ids = {server.id for server in (new, *others)}
    servers = [it for it in backups_of_world(found, world) if it.instance_id in ids]
    late = new.fill(new.image("2", kind="backup", label="daily"))
    joined = found.backups_of_servers(servers)
    (of_new,) = (backups for ref, backups in joined.items() if ref.instance_id == new.id)
    assert late in {backup.image_id for backup in of_new}
    assert len(of_new) == 2
    assert sum(map(len, joined.values())) == 7


def test_usages_without_the_number_of_sources_keep_the_backup(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter of an older version does not send it."""
    found = inventory(world, ADMIN)
    real = found.relations.usages
    monkeypatch.setattr(
        found.relations,
        "usages",
        lambda ids: (replace(usage, made_from=0) for usage in real(ids)),
    )
    joined = found.backups_of_servers(backups_of_world(found, world))
    assert {it.used_by_others for backups in joined.values() for it in backups} == {None}
