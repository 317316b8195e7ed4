"""``image lineage show``: images and resources in every format, with a real Glance and without."""

import json
import shutil
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.client import ClientError, RelationsClient
from related_images.client.errors import DrawingFailed
from related_images.client.graph_drawing import FORMATS, Node, dot, fold, mermaid, svg, tree
from related_images.client.lineage import lineage
from related_images.client.names import Names
from related_images.osc.image_lineage import ShowImageLineage
from tests.osc.running import Cloud, Instance

GRAPHVIZ = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
DRAWN = [pytest.param(name, marks=GRAPHVIZ if name == "svg" else ()) for name in FORMATS]


def start(instance: Instance, instance_id: str, image_id: str, **more: str) -> Instance:
    """Return another server of the same project, started from the image."""
    body = {
        "installation_uuid": instance.installation,
        "instance_id": instance_id,
        "image_id": image_id,
        "kind": "boot",
        "instance_project_id": instance.project,
    }
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body | more)
    assert answer.status == 201, answer.body
    return Instance(instance.glance, instance.installation, instance_id, instance.project)


@pytest.fixture
def chain(instance: Instance) -> list[str]:
    """Three images, each made from a server of the previous image; the second is deleted."""
    first = instance.image("first")
    second = start(instance, f"{instance.id}-2", first).image("second")
    third = start(instance, f"{instance.id}-3", second).image("third", kind="backup")
    path = f"/v2/images/{second}"
    assert instance.glance.request("DELETE", path, instance.member).status == 204
    return [first, second, third]


def nodes(cloud: Cloud, *arguments: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(cloud.run(ShowImageLineage, *arguments).said)
    return shown


def test_the_tree_has_images_and_the_servers_between(
    instance: Instance, chain: list[str], member: Cloud
) -> None:
    first, second, third = chain
    for asked in chain:
        shown = nodes(member, "-f", "json", asked)
        assert [(node["type"], node["id"]) for node in shown] == [
            ("server", instance.id),
            ("image", first),
            ("server", f"{instance.id}-2"),
            ("image", second),
            ("server", f"{instance.id}-3"),
            ("image", third),
        ]
        assert [node["depth"] for node in shown] == [*range(6)]
        assert [node["id"] for node in shown if node["is_asked"]] == [asked]
        links = ["snapshot", "boot", "snapshot", "boot", "backup"]
        assert [node["link"] for node in shown[1:]] == links
        assert [node["id"] for node in shown if node["ended_at"]] == [second]
    assert len(nodes(member, "-f", "json", "--depth", "1", first)) == 5


def test_resources_hang_below_what_they_come_from(instance: Instance, member: Cloud) -> None:
    base, disk, server = instance.image("base"), f"{instance.id}-disk", f"{instance.id}-on-disk"
    start(instance, disk, base, resource_type="volume")
    source = {
        "installation_uuid": instance.installation,
        "instance_id": disk,
        "resource_type": "volume",
    }
    one = {**source, "resource_type": "server", "instance_id": server, "source": source}
    one |= {"since": "2026-01-31T02:00:00Z", "project_id": instance.project}
    body = {"origins": [one]}
    sent = instance.glance.request("POST", "/v2/origins", instance.recorder, body=body)
    assert sent.json["origins"][0]["status"] == 201
    on_disk = Instance(instance.glance, instance.installation, server, instance.project)
    made = on_disk.image("made")
    path = f"/v2/instances/{instance.installation}/{server}"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    shown = nodes(member, "-f", "json", base)[1:]
    assert [(node["depth"], node["type"], node["id"], node["link"]) for node in shown] == [
        (1, "image", base, "snapshot"),
        (2, "volume", disk, "boot"),
        (3, "server", server, "origin"),
        (4, "image", made, "snapshot"),
    ]
    assert [node["ended_at"] is None for node in shown] == [True, True, False, True]


@pytest.mark.parametrize("format", DRAWN)
def test_every_format_names_every_image(chain: list[str], member: Cloud, format: str) -> None:
    drawn = unescape(member.run(ShowImageLineage, "--format", format, chain[1]).said)
    assert all(image_id in drawn for image_id in chain)
    assert "deleted" in drawn or format == "json"


def client_of(instance: Instance) -> RelationsClient:
    session = Session(auth=Token(instance.glance.url, instance.member))
    return RelationsClient(Adapter(session, service_type="image"))


def test_a_limit_leaves_out_the_rest(instance: Instance, chain: list[str]) -> None:
    """The third image descends from a server whose image is left out."""
    first = chain[0]
    for number in range(3):
        start(instance, f"{instance.id}-live-{number}", chain[2])
    relations = client_of(instance)
    names = Names(relations, None, {}, ClientError, print)
    whole = [node.id for _, node in lineage(relations, names, first).walk()]
    some = [node.id for _, node in lineage(relations, names, first, limit=1).walk()]
    assert set(some) < set(whole)
    assert {first, chain[1]} <= set(some)
    assert chain[2] not in some


def test_only_live_or_ended_dependents(instance: Instance) -> None:
    base = instance.image("base")
    for name in ("live", "ended"):
        start(instance, name, base)
    path = f"/v2/instances/{instance.installation}/ended"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    relations = client_of(instance)
    names = Names(relations, None, {}, ClientError, print)
    for states, expected in (((True,), ["live"]), ((False,), ["ended"]), ((), [])):
        root = lineage(relations, names, base, states=states)
        assert [node.id for node in root.children[0].children] == expected


def test_a_deleted_server_between_images(instance: Instance, chain: list[str]) -> None:
    path = f"/v2/instances/{instance.installation}/{instance.id}-2"
    assert instance.glance.request("DELETE", path, instance.recorder).status == 204
    relations = client_of(instance)
    root = lineage(relations, Names(relations, None, {}, ClientError, print), chain[2])
    ended = {node.id for _, node in root.walk() if node.ended_at}
    assert ended == {f"{instance.id}-2", chain[1]}


def wide(size: int) -> Node:
    children = [Node("server", f"s{n}", children=[Node("image", f"g{n}")]) for n in range(size)]
    return Node("image", "root", is_asked=True, children=children)


def test_nodes_beyond_the_width_are_counted() -> None:
    root = wide(5)
    fold(root, 2)
    assert [node.title for _, node in root.walk()] == [
        "image root (requested)",
        *("server s0", "image g0", "server s1", "image g1"),
        "… 3 images, 3 servers more",
    ]
    root = wide(2)
    fold(root, 2)
    assert len(list(root.walk())) == 5


def test_live_resources_and_those_with_images_are_kept_first() -> None:
    children = [Node("server", "ended", ended_at="2026"), Node("server", "live"), *wide(1).children]
    root = Node("image", "root", children=children)
    fold(root, 2)
    assert [node.id for node in root.children] == ["live", "s0", ""]


def test_the_text_shows_the_structure_and_dims_what_was_deleted() -> None:
    root = wide(2)
    root.children[0].ended_at = "2026-03-01T02:00:00Z"
    root.children[1].children[0].link = "backup"
    lines = tree(root).splitlines()
    assert lines == [
        "image root (requested)",
        "├─ server s0  (deleted 2026-03-01)",
        "│  └─ image g0",
        "└─ server s1",
        "   └─ backup: image g1",
    ]
    assert tree(root, is_grey=True).splitlines()[1] == (
        "├─ \x1b[2mserver s0  (deleted 2026-03-01)\x1b[0m"
    )


def test_a_name_cannot_control_the_terminal_or_the_picture() -> None:
    root = Node("image", "root", name='\x1b[31m<b>"]\n')
    assert "\x1b" not in tree(root)
    assert "\n" not in tree(root)
    assert "<b>&quot;" not in dot(root).replace("<b>image", "")
    assert "<b>" not in mermaid(root)


def test_graphviz_and_mermaid_have_every_node_and_edge() -> None:
    root = wide(1)
    root.children[0].link = "boot"
    drawn = dot(root).splitlines()
    assert [line.split(" [")[0].strip() for line in drawn if line.startswith("  n")][-5:] == [
        *("n0", "n1", "n2"),
        *("n0 -> n1", "n1 -> n2;"),
    ]
    assert '  n0 -> n1 [label="boot"];' in drawn
    assert mermaid(root).splitlines()[:6] == [
        "graph LR",
        '  n0["image root (requested)"]:::asked',
        '  n1["server s0"]',
        '  n2["image g0"]',
        "  n0 -- boot --> n1",
        "  n1 --> n2",
    ]


@GRAPHVIZ
def test_the_svg_is_well_formed_with_any_project_name() -> None:
    root = Node("image", "root", children=[Node("server", "child", project_id='<&"\\>')])
    picture = ElementTree.fromstring(svg(root))
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["image root", "server child", 'project <&"\\>']


def test_without_graphviz_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DrawingFailed, match="`dot` was not found; install Graphviz, or draw"):
        svg(wide(1))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "svg"])
def test_a_chain_of_thousands_is_drawn(name: str) -> None:
    root = node = Node("image", "0")
    for number in range(1, 3000):
        node.children = [Node("image", str(number))]
        node = node.children[0]
    fold(root, 1)
    assert "2999" in FORMATS[name](root)
