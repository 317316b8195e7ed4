"""Every route and filter, for every type of caller, compared with a naive implementation.

A project sees that an image was made from a server if it owns the image, and that a server was
started from an image if it owns the server. Responses depend on nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.filters import new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, user_of

MADE = ("snapshot", "backup")
PROJECTS = ("server-owner", "image-owner", "base-owner", "member", "both", "stranger")
EVERYBODY = (*PROJECTS, "admin", "service")


@dataclass(frozen=True)
class Related:
    """A relation: server, owner of the server, image, owner of the image."""

    server: str
    server_owner: str
    image: str
    image_owner: str
    kind: str
    label: str | None = None

    def is_seen_by(self, caller: str) -> bool:
        if caller in ("admin", "service"):
            return True
        return caller == (self.server_owner if self.kind == "boot" else self.image_owner)


@dataclass
class World:
    """The recorded relations, and requests for them."""

    cloud: Cloud
    installation: str = field(default_factory=new_uuid)
    suffix: str = field(default_factory=lambda: new_uuid()[:8])
    related: list[Related] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def project(self, name: str) -> str:
        return f"{name}-{self.suffix}"

    def headers(self, caller: str) -> dict[str, str]:
        if caller == "admin":
            return ADMIN
        # a service sends requests with the token of any user
        user = user_of(self.project("stranger" if caller == "service" else caller))
        return user | (SERVICE_TOKEN if caller == "service" else {})

    def ask(self, caller: str, path: str) -> Any:
        return self.cloud.call("GET", path, self.headers(caller))

    def make(
        self, server: str, server_owner: str, owner: str, kind: str, visibility: str, **label: str
    ) -> str:
        sent_headers = {
            "X-Installation-UUID": self.installation,
            "X-Instance-ID": server,
            "X-Instance-Project-ID": self.project(server_owner),
            "X-Relation-Kind": kind,
            **{f"X-Relation-{name.title()}": text for name, text in label.items()},
        }
        body = {"name": "n", "owner": self.project(owner), "visibility": visibility}
        answer = self.cloud.call("POST", "/v2/images", ADMIN | SERVICE_TOKEN | sent_headers, body)
        assert answer.status == 201, answer.body
        made = str(answer.json["id"])
        self.related.append(Related(server, server_owner, made, owner, kind, label.get("label")))
        return made

    def start(self, server: str, server_owner: str, image: str, image_owner: str) -> None:
        body = {
            "installation_uuid": self.installation,
            "instance_id": server,
            "image_id": image,
            "kind": "boot",
            "instance_project_id": self.project(server_owner),
        }
        answer = self.cloud.call("POST", "/v2/relations", ADMIN | SERVICE_TOKEN, body)
        assert answer.status == 201, answer.body
        self.related.append(Related(server, server_owner, image, image_owner, "boot"))

    def seen(self, caller: str) -> list[Related]:
        return [one for one in self.related if one.is_seen_by(caller)]

    def glance_shows(self, caller: str, **query: str) -> set[str]:
        """Return the images of this test in Glance's own list."""
        whole = self.cloud.image_ids(self.headers(caller), visibility="all", limit=1000, **query)
        return set(whole) & {one.image for one in self.related}


@pytest.fixture(scope="module")
def world(cloud: Cloud) -> World:
    world = World(cloud)
    base = {"name": "base", "owner": world.project("base-owner"), "visibility": "public"}
    base_id = cloud.call("POST", "/v2/images", ADMIN, base).json["id"]
    one, other, gone = (f"{name}-{world.suffix}" for name in ("one", "other", "gone"))
    world.start(one, "server-owner", base_id, "base-owner")
    public = world.make(one, "server-owner", "image-owner", "snapshot", "public")
    world.make(one, "server-owner", "image-owner", "backup", "community", label="daily")
    shared = world.make(one, "server-owner", "image-owner", "backup", "shared", label="weekly")
    world.make(one, "server-owner", "server-owner", "backup", "private", label="daily")
    world.start(other, "both", public, "image-owner")
    own = world.make(other, "both", "both", "snapshot", "shared", label="daily")
    world.start(gone, "both", own, "both")
    world.make(gone, "both", "both", "snapshot", "private")
    world.make(gone, "both", "image-owner", "snapshot", "private")
    # the owner of this server was never reported
    unknown = f"unknown-{world.suffix}"
    body = {"installation_uuid": world.installation, "instance_id": unknown, "image_id": public}
    service = ADMIN | SERVICE_TOKEN
    assert cloud.call("POST", "/v2/relations", service, body | {"kind": "boot"}).status == 201
    world.related.append(Related(unknown, "nobody", public, "image-owner", "boot"))
    path = f"/v2/instances/{world.installation}/{gone}"
    assert cloud.call("DELETE", path, service).status == 204
    world.ended.add(gone)
    for name in ("member", "server-owner"):
        members, user = f"/v2/images/{shared}/members", world.project(name)
        added = cloud.call("POST", members, user_of(world.project("image-owner")), {"member": user})
        assert added.status == 200
        accepted = {"status": "accepted"}
        taken = cloud.call("PUT", f"{members}/{user}", user_of(user), accepted)
        assert taken.status == 200
    return world


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["instance_id"], row["image_id"], row["kind"]


def keys(rows: list[Related]) -> list[tuple[str, str, str]]:
    return sorted((row.server, row.image, row.kind) for row in rows)


def questions(world: World) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield each filter and some combinations, with a predicate of the matching relations."""
    yield {}, lambda row: True
    for kind in (*MADE, "boot"):
        yield {"kind": kind}, lambda row, kind=kind: row.kind == kind
    for label in ("daily", "weekly", "never"):
        yield {"label": label}, lambda row, label=label: row.label == label
    for wanted in (True, False):
        yield (
            {"in_use": str(wanted).lower()},
            lambda row, wanted=wanted: (
                wanted == (row.kind == "boot" and row.server not in world.ended)
            ),
        )
    for image in sorted({row.image for row in world.related}):
        yield {"image_id": image}, lambda row, image=image: row.image == image
    for server in sorted({row.server for row in world.related}):
        yield {"instance_id": server}, lambda row, server=server: row.server == server
    for name in PROJECTS:
        yield (
            {"project_id": world.project(name)},
            lambda row, name=name: (
                name == (row.server_owner if row.kind == "boot" else row.image_owner)
            ),
        )
    yield {"source": "service"}, lambda row: True
    yield {"source": "manual"}, lambda row: False
    yield {"created_after": "2000-01-01"}, lambda row: True
    yield {"created_before": "2000-01-01"}, lambda row: False


@pytest.mark.parametrize("caller", EVERYBODY)
def test_relation_list_has_what_the_caller_sees(world: World, caller: str) -> None:
    for query, fulfils in questions(world):
        asked = urlencode({"installation_uuid": world.installation, **query})
        rows = world.ask(caller, f"/v2/relations?{asked}").json["relations"]
        expected = [row for row in world.seen(caller) if fulfils(row)]
        assert sorted(map(key, rows)) == keys(expected), query
        pages = world.cloud.pages(
            f"/v2/relations?{asked}&limit=1", world.headers(caller), "relations"
        )
        assert [row for page in pages for row in page] == rows


@pytest.mark.parametrize("caller", EVERYBODY)
def test_relation_list_of_an_image_has_what_the_caller_sees(world: World, caller: str) -> None:
    visible = world.glance_shows(caller)
    for image in {row.image for row in world.related}:
        expected = [row for row in world.seen(caller) if row.image == image]
        answer = world.ask(caller, f"/v2/images/{image}/relations")
        if expected or image in visible:
            assert sorted(map(key, answer.json["relations"])) == keys(expected)
        else:
            assert answer.status == 404


def shown_instance(world: World, caller: str, server: str) -> dict[str, Any]:
    """Return the row of the server as the caller should see it."""
    seen = [row for row in world.seen(caller) if row.server == server]
    owner = next(row.server_owner for row in world.related if row.server == server)
    owns = caller in ("admin", "service", owner)
    boots = [row.image for row in seen if row.kind == "boot"]
    counts = {kind: sum(row.kind == kind for row in seen) for kind in (*MADE, "boot")}
    return {
        "project_id": world.project(owner) if owns and owner != "nobody" else None,
        "boot_image_id": boots[0] if boots else None,
        "ended": owns and server in world.ended,
        "images": {kind: count for kind, count in counts.items() if count},
    }


def read_instance(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "project_id": row["project_id"],
        "boot_image_id": row["boot_image_id"],
        "ended": row["ended_at"] is not None,
        "images": {kind: images["count"] for kind, images in row["images"].items()},
    }


@pytest.mark.parametrize("caller", EVERYBODY)
def test_server_list_has_what_the_caller_sees(world: World, caller: str) -> None:
    for query, fulfils in questions(world):
        asked = urlencode({"installation_uuid": world.installation, **query})
        rows = world.ask(caller, f"/v2/instances?{asked}").json["instances"]
        servers = {row.server for row in world.seen(caller) if fulfils(row)}
        expected = {server: shown_instance(world, caller, server) for server in servers}
        assert {row["instance_id"]: read_instance(row) for row in rows} == expected, query
    for server in {row.server for row in world.related}:
        answer = world.ask(caller, f"/v2/instances/{world.installation}/{server}")
        if any(row.server == server for row in world.seen(caller)):
            assert read_instance(answer.json) == shown_instance(world, caller, server)
        else:
            assert answer.status == 404


@pytest.mark.parametrize("caller", EVERYBODY)
def test_overdue_servers_depend_on_what_the_caller_sees(world: World, caller: str) -> None:
    for kind, label in product((*MADE, "boot"), (None, "daily", "weekly")):
        query = {"kind": kind, "latest_before": "2000-01-01"} | ({"label": label} if label else {})
        asked = urlencode({"installation_uuid": world.installation, **query})
        rows = world.ask(caller, f"/v2/instances?{asked}").json["instances"]
        seen = world.seen(caller)
        having = {row.server for row in seen if row.kind == kind and label in (None, row.label)}
        assert {row["instance_id"] for row in rows} == {row.server for row in seen} - having


@pytest.mark.parametrize("caller", EVERYBODY)
def test_image_list_has_what_the_caller_sees(world: World, caller: str) -> None:
    visible = world.glance_shows(caller)
    servers = {row.server: row.server_owner for row in world.related}
    for server, kind, label in product(
        servers, (None, *MADE, "boot"), (None, "daily", "weekly", "never")
    ):
        expected = {
            row.image
            for row in world.related
            if row.server == server
            and (row.kind in MADE if kind is None else row.kind == kind)
            and label in (None, row.label)
            and (row.is_seen_by(caller) or servers[server] == caller)
        }
        query = {"installation_uuid": world.installation, "instance_id": server}
        query |= {"relation_kind": kind} if kind else {}
        query |= {"relation_label": label} if label else {}
        headers = world.headers(caller)
        found = world.cloud.image_ids(headers, visibility="all", limit=1, **query)
        assert (set(found), len(found)) == (expected & visible, len(set(found))), query


def links(world: World, caller: str) -> dict[str, str]:
    """Return the parent of each image, if the caller sees both relations."""
    seen = world.seen(caller)
    started = {row.server: row.image for row in seen if row.kind == "boot"}
    return {
        row.image: started[row.server]
        for row in seen
        if row.kind != "boot" and row.server in started
    }


@pytest.mark.parametrize("caller", EVERYBODY)
def test_lineage_uses_links_that_the_caller_sees(world: World, caller: str) -> None:
    above, visible = links(world, caller), world.glance_shows(caller)
    for image in {row.image for row in world.related}:
        is_seen = image in visible or any(row.image == image for row in world.seen(caller))
        for what in ("ancestry", "descendants"):
            answer = world.ask(caller, f"/v2/images/{image}/{what}")
            assert answer.status == (200 if is_seen else 404)
            if is_seen:
                found = [entry["image_id"] for entry in answer.json[what]]
                assert (found, set(answer.json) - {what}) == (
                    _ancestry(above, image) if what == "ancestry" else _tree(above, image),
                    {"image_id", "first"},
                )


def _ancestry(above: dict[str, str], image: str) -> list[str]:
    parent = above.get(image)
    return [] if parent is None else [parent, *_ancestry(above, parent)]


def _tree(above: dict[str, str], image: str) -> list[str]:
    """Return the descendants in the order of recording, each followed by its own."""
    found = []
    for child, parent in above.items():
        if parent == image:
            found += [child, *_tree(above, child)]
    return found


@pytest.mark.parametrize("caller", EVERYBODY)
def test_dependents_are_what_the_caller_sees(world: World, caller: str) -> None:
    above, visible = links(world, caller), world.glance_shows(caller)
    starts = [row for row in world.seen(caller) if row.kind == "boot"]
    for image in {row.image for row in world.related}:
        path = f"/v2/images/{image}/dependents"
        if image not in visible and all(row.image != image for row in world.seen(caller)):
            for query in ("", "/summary", "/summary?group_by=project"):
                assert world.ask(caller, path + query).status == 404
            continue
        below = {row.image: row for row in starts}.keys() & {image, *_tree(above, image)}
        expected = [row for row in starts if row.image in below]
        live = [row.server for row in expected if row.server not in world.ended]
        for is_live in (True, False):
            pages = world.cloud.pages(
                f"{path}?limit=1&live={str(is_live).lower()}", world.headers(caller), "dependents"
            )
            servers = [row["instance_id"] for page in pages for row in page]
            wanted = [row.server for row in expected if (row.server in live) == is_live]
            assert sorted(servers) == sorted(wanted)
        summary = world.ask(caller, f"{path}/summary").json
        numbers = summary["by_type"].get("server", {"live": 0, "ended": 0})
        ended = {row.server for row in expected} - {*live}
        assert (numbers["live"], numbers["ended"]) == (len({*live}), len(ended))
        rows = world.ask(caller, f"{path}/summary?group_by=project").json["projects"]
        owners = {row.server_owner for row in expected}
        assert {row["project_id"] for row in rows} == {
            None if owner == "nobody" else world.project(owner) for owner in owners
        }


@pytest.mark.parametrize("caller", EVERYBODY)
def test_usages_count_what_the_caller_sees(world: World, caller: str) -> None:
    images = sorted({row.image for row in world.related})
    answer = world.ask(caller, f"/v2/usages?image_ids={','.join(images)}").json
    starts = [row for row in world.seen(caller) if row.kind == "boot"]
    for usage in answer["usages"]:
        of_image = [row for row in starts if row.image == usage["image_id"]]
        live = [row for row in of_image if row.server not in world.ended]
        assert (usage["instances"], usage["live_instances"]) == (len(of_image), len(live))


def test_later_report_of_the_owner_applies_everywhere(cloud: Cloud) -> None:
    world = World(cloud)
    server, image_id = f"moved-{world.suffix}", new_uuid()
    base = {"name": "base", "owner": world.project("base-owner"), "visibility": "public"}
    image_id = cloud.call("POST", "/v2/images", ADMIN, base).json["id"]
    world.start(server, "server-owner", image_id, "base-owner")
    made = world.make(server, "both", "both", "snapshot", "shared")
    world.related[0] = Related(server, "both", image_id, "base-owner", "boot")
    for caller in PROJECTS:
        rows = world.ask(caller, f"/v2/relations?instance_id={server}").json["relations"]
        assert sorted(map(key, rows)) == keys(world.seen(caller))
        query = {"installation_uuid": world.installation, "instance_id": server}
        started = world.cloud.image_ids(world.headers(caller), **query, relation_kind="boot")
        assert started == ([image_id] if caller == "both" else [])
    (entry,) = world.ask("both", f"/v2/images/{made}/ancestry").json["ancestry"]
    assert entry["image_id"] == image_id
