"""Draw a tree of images as text, JSON, SVG, and in the languages of Graphviz and Mermaid."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Final

LINE_HEIGHT, INDENT, MARGIN, LETTER = 24, 28, 16, 7.5
"""Sizes in the SVG, in pixels. ``LETTER`` is the width of a letter."""


@dataclass
class Node:
    """An image, the server that it was made from, and the images made from its servers.

    :ivar folded: the number of images that this node stands for; ``image_id`` is then empty
    """

    image_id: str
    image_name: str | None = None
    kind: str | None = None
    created_at: str | None = None
    project_id: str | None = None
    server_id: str | None = None
    server_name: str | None = None
    deleted_at: str | None = None
    folded: int = 0
    children: list["Node"] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The image ID, or the number of folded images."""
        return f"… {self.folded} more" if self.folded else self.image_id

    @property
    def details(self) -> str:
        """Name, kind, creation time, project, server and deletion time, without unknown values."""
        server = f"{self.server_id} ({self.server_name})" if self.server_name else self.server_id
        details = (self.image_name, self.kind, self.created_at, self.project_id, server)
        deleted = self.deleted_at and f"deleted at {self.deleted_at}"
        return ", ".join(text for text in (*details, deleted) if text)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Node"]]:
        """Yield this node and its descendants with their depths, each before its children."""
        waiting = [(depth, self)]
        while waiting:
            level, node = waiting.pop()
            yield level, node
            waiting += [(level + 1, child) for child in reversed(node.children)]


def fold(root: Node, width: int) -> None:
    """Keep at most ``width`` children of each node, and replace the others by one node.

    Its ``folded`` is the number of removed nodes, descendants of the children included.
    """
    for _, node in root.walk():
        removed = node.children[width:]
        if removed:
            number = sum(1 for child in removed for _ in child.walk())
            node.children[width:] = [Node("", folded=number)]


def _nodes_and_edges(root: Node) -> tuple[list[Node], list[tuple[int, int]]]:
    """Return the nodes, and the edges as pairs of indexes of nodes."""
    nodes = [node for _, node in root.walk()]
    indexes = {id(node): index for index, node in enumerate(nodes)}
    edges = [(indexes[id(node)], indexes[id(child)]) for node in nodes for child in node.children]
    return nodes, edges


def _quoted(node: Node, line_break: str) -> str:
    lines = [line for line in (node.title, node.details) if line]
    return line_break.join(line.replace("\\", "\\\\").replace('"', "'") for line in lines)


def dot(root: Node) -> str:
    """Return the tree in the language of Graphviz."""
    nodes, edges = _nodes_and_edges(root)
    lines = [
        f'  n{index} [label="{_quoted(node, chr(92) + "n")}"];' for index, node in enumerate(nodes)
    ]
    lines += [f"  n{parent} -> n{child};" for parent, child in edges]
    return "\n".join(["digraph lineage {", "  node [shape=box];", *lines, "}"])


def mermaid(root: Node) -> str:
    """Return the tree in the language of Mermaid."""
    nodes, edges = _nodes_and_edges(root)
    lines = [f'  n{index}["{_quoted(node, "<br/>")}"]' for index, node in enumerate(nodes)]
    return "\n".join(
        ["graph TD", *lines, *(f"  n{parent} --> n{child}" for parent, child in edges)]
    )


def svg(root: Node) -> str:
    """Return the tree as an SVG image."""
    rows = [(depth, f"{node.title}  {node.details}".strip()) for depth, node in root.walk()]
    width = max(MARGIN * 2 + depth * INDENT + len(text) * LETTER for depth, text in rows)
    drawn = [_svg_row(index, depth, text) for index, (depth, text) in enumerate(rows)]
    height = MARGIN * 2 + LINE_HEIGHT * len(rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"'
    style = '<g font-family="monospace" font-size="12" stroke-width="1">'
    return "\n".join([f"{head}>", style, *drawn, *_svg_lines(rows), "</g>", "</svg>"])


def _svg_row(index: int, depth: int, text: str) -> str:
    x, y = MARGIN + depth * INDENT, MARGIN + LINE_HEIGHT * index + LINE_HEIGHT // 2
    return f'<text x="{x}" y="{y + 4}">{escape(text)}</text>'


def _svg_lines(rows: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Yield a line from each text to each of its children."""
    parents: dict[int, int] = {}
    for index, (depth, _) in enumerate(rows):
        y = MARGIN + LINE_HEIGHT * index + LINE_HEIGHT // 2
        parents[depth] = y
        if depth:
            x = MARGIN + (depth - 1) * INDENT + 6
            path = f"M{x} {parents[depth - 1] + 8}V{y}H{x + INDENT - 10}"
            yield f'<path d="{path}" fill="none" stroke="black"/>'


def table(root: Node) -> str:
    """Return the tree as indented text with two columns."""
    rows = [("  " * depth + node.title, node.details) for depth, node in root.walk()]
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"{title:<{width}}  {details}".rstrip() for title, details in rows)


def as_json(root: Node) -> str:
    """Return all nodes with their depths as JSON, each before its children."""
    nodes = [{"depth": depth, **_fields_of(node)} for depth, node in root.walk()]
    return json.dumps(nodes, indent=2)


def _fields_of(node: Node) -> dict[str, Any]:
    without_children = Node(**{**vars(node), "children": []})
    fields = asdict(without_children).items()
    return {name: value for name, value in fields if name != "children"}


FORMATS: Final[dict[str, Callable[[Node], str]]] = {
    "table": table,
    "json": as_json,
    "dot": dot,
    "svg": svg,
    "mermaid": mermaid,
}
