"""``image lineage show``: the tree in every format, with a real Glance and without."""

import json
from xml.etree import ElementTree

import pytest

from related_images.osc.graph_drawing import (
    FORMATS,
    Node,
    dot,
    fold,
    mermaid,
    svg,
)
from related_images.osc.lineage import ShowImageLineage
from tests.osc.running import Cloud, Instance


def start(instance: Instance, instance_id: str, image_id: str) -> Instance:
    """Return another server of the same project, started from the image."""
    body = {
        "installation_uuid": instance.installation,
        "instance_id": instance_id,
        "image_id": image_id,
        "kind": "boot",
        "instance_project_id": instance.project,
    }
    answer = instance.glance.request("POST", "/v2/relations", instance.recorder, body=body)
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


def test_the_tree_has_ancestors_and_descendants(
    instance: Instance, chain: list[str], member: Cloud
) -> None:
    for asked in chain:
        shown = json.loads(member.run(ShowImageLineage, "-f", "json", asked).said)
        assert [(node["depth"], node["image_id"]) for node in shown] == list(enumerate(chain))
    assert [node["kind"] for node in shown] == ["snapshot", "snapshot", "backup"]
    assert [node["deleted_at"] is None for node in shown] == [True, False, True]
    assert {node["project_id"] for node in shown} == {instance.project}
    assert shown[2]["server_id"] == f"{instance.id}-3"
    shown = json.loads(member.run(ShowImageLineage, "-f", "json", "--depth", "1", chain[0]).said)
    assert len(shown) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_every_image(chain: list[str], member: Cloud, format: str) -> None:
    drawn = member.run(ShowImageLineage, "--format", format, chain[1]).said
    assert all(image_id in drawn for image_id in chain)
    assert "deleted" in drawn


def wide(size: int) -> Node:
    return Node("root", children=[Node(f"c{n}", children=[Node(f"g{n}")]) for n in range(size)])


def test_images_beyond_the_width_are_counted() -> None:
    root = wide(5)
    fold(root, 2)
    assert [node.title for _, node in root.walk()] == ["root", "c0", "g0", "c1", "g1", "… 6 more"]
    root = wide(2)
    fold(root, 2)
    assert len(list(root.walk())) == 5


def test_graphviz_and_mermaid_have_every_node_and_edge() -> None:
    assert dot(wide(1)).splitlines() == [
        "digraph lineage {",
        "  node [shape=box];",
        '  n0 [label="root"];',
        '  n1 [label="c0"];',
        '  n2 [label="g0"];',
        "  n0 -> n1;",
        "  n1 -> n2;",
        "}",
    ]
    assert mermaid(wide(1)).splitlines() == [
        "graph TD",
        '  n0["root"]',
        '  n1["c0"]',
        '  n2["g0"]',
        "  n0 --> n1",
        "  n1 --> n2",
    ]


def test_the_svg_is_well_formed_with_any_project_name() -> None:
    root = Node("root", children=[Node("child", project_id='<&"\\>')])
    picture = ElementTree.fromstring(svg(root))
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["root", 'child  <&"\\>']
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) == 1
    assert '"' not in dot(root).splitlines()[3].split('"', 1)[1].rsplit('"', 1)[0]


@pytest.mark.parametrize("draw", FORMATS.values())
def test_a_chain_of_thousands_is_drawn(draw: object) -> None:
    root = node = Node("0")
    for number in range(1, 3000):
        node.children = [Node(str(number))]
        node = node.children[0]
    fold(root, 1)
    assert callable(draw)
    assert "2999" in draw(root)
