"""Drawings with links, short texts, and names that are no harmless text."""

import re
import shutil
from xml.etree import ElementTree

import pytest

from related_images.client.graph_drawing import Node, dot, svg

IMAGE_ID = "0b9c0f4a-3d5c-4f0e-8a3e-5a1c5d6d9b11"
NAMES = ('"quoted"', "ends with \\", "<b>bold</b>", "a]; b [", "&amp;", "{{7*7}}", "\x1b[31m")


def lineage(name: str | None) -> Node:
    server = Node("server", "server-1", name, "boot", ended_at="2026-01-31T02:00:00Z")
    return Node("image", IMAGE_ID, name, project_id="demo", children=[server])


def url_of(node: Node) -> str | None:
    return None if node.ended_at else f"/images/{node.id}/?a=1&b=2"


def test_a_short_drawing_has_ids_and_projects_only_as_tooltips() -> None:
    drawn = dot(lineage("web"), is_short=True)
    assert f'tooltip="image {IMAGE_ID}, project demo"' in drawn
    labels = re.sub('tooltip="[^"]*"', "", drawn)
    assert "web" in labels
    assert IMAGE_ID not in labels
    assert "demo" not in labels
    assert f"{IMAGE_ID[:8]}…" in dot(lineage(None), is_short=True)


def test_a_large_drawing_is_short() -> None:
    root = lineage("web")
    assert f"<br/>{IMAGE_ID}<br/>" in dot(root)
    root.children += [Node("server", f"vm-{number}", f"web-{number}") for number in range(20)]
    assert f"<br/>{IMAGE_ID}<br/>" not in dot(root)


def test_a_vertical_drawing() -> None:
    assert "rankdir=LR" in dot(lineage("web"))
    assert "rankdir=TB" in dot(lineage("web"), is_vertical=True)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_a_drawing_with_links(name: str) -> None:
    drawn = ElementTree.fromstring(svg(lineage(name), url_of, is_short=True))
    texts = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    shown = re.sub("\x1b", "?", name)
    assert [text for text in texts if shown in text] == [f"image {shown}", f"server {shown}"]
    links = [
        one.get("{http://www.w3.org/1999/xlink}href") for one in drawn.iter() if "}a" in one.tag
    ]
    assert [link for link in links if link] == [f"/images/{IMAGE_ID}/?a=1&b=2"]
