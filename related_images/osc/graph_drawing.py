"""A tree of images drawn: as text, for graphviz and mermaid, and as SVG."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Final

LINE_HEIGHT, INDENT, MARGIN, LETTER = 24, 28, 16, 7.5
"""Pixels of the SVG."""


@dataclass
class Node:
    """An image, what is known of it, and what was made from it.

    ``image_id`` is empty where images are folded; ``folded`` counts those.
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
        return f"… {self.folded} more" if self.folded else self.image_id

    @property
    def facts(self) -> str:
        """Name, kind, date, project, server and deletion, as far as they are known."""
        server = f"{self.server_id} ({self.server_name})" if self.server_name else self.server_id
        known = (self.image_name, self.kind, self.created_at, self.project_id, server)
        deleted = self.deleted_at and f"deleted at {self.deleted_at}"
        return ", ".join(text for text in (*known, deleted) if text)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Node"]]:
        """The image and all below, each before its own."""
        waiting = [(depth, self)]
        while waiting:
            level, node = waiting.pop()
            yield level, node
            waiting += [(level + 1, child) for child in reversed(node.children)]


def fold(root: Node, width: int) -> None:
    """Leave at most ``width`` below each image, and count those that go with all below them."""
    for _, node in root.walk():
        gone = node.children[width:]
        if gone:
            number = sum(1 for child in gone for _ in child.walk())
            node.children[width:] = [Node("", folded=number)]


def _numbered(root: Node) -> tuple[list[Node], list[tuple[int, int]]]:
    nodes = [node for _, node in root.walk()]
    number = {id(node): place for place, node in enumerate(nodes)}
    edges = [(number[id(node)], number[id(child)]) for node in nodes for child in node.children]
    return nodes, edges


def _quoted(node: Node, line_break: str) -> str:
    lines = [line for line in (node.title, node.facts) if line]
    return line_break.join(line.replace("\\", "\\\\").replace('"', "'") for line in lines)


def dot(root: Node) -> str:
    nodes, edges = _numbered(root)
    lines = [
        f'  n{place} [label="{_quoted(node, chr(92) + "n")}"];' for place, node in enumerate(nodes)
    ]
    lines += [f"  n{above} -> n{below};" for above, below in edges]
    return "\n".join(["digraph lineage {", "  node [shape=box];", *lines, "}"])


def mermaid(root: Node) -> str:
    nodes, edges = _numbered(root)
    lines = [f'  n{place}["{_quoted(node, "<br/>")}"]' for place, node in enumerate(nodes)]
    return "\n".join(["graph TD", *lines, *(f"  n{above} --> n{below}" for above, below in edges)])


def svg(root: Node) -> str:
    rows = [(depth, f"{node.title}  {node.facts}".strip()) for depth, node in root.walk()]
    width = max(MARGIN * 2 + depth * INDENT + len(text) * LETTER for depth, text in rows)
    drawn = [_row(place, depth, text) for place, (depth, text) in enumerate(rows)]
    height = MARGIN * 2 + LINE_HEIGHT * len(rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"'
    style = '<g font-family="monospace" font-size="12" stroke-width="1">'
    return "\n".join([f"{head}>", style, *drawn, *_branches(rows), "</g>", "</svg>"])


def _row(place: int, depth: int, text: str) -> str:
    x, y = MARGIN + depth * INDENT, MARGIN + LINE_HEIGHT * place + LINE_HEIGHT // 2
    return f'<text x="{x}" y="{y + 4}">{escape(text)}</text>'


def _branches(rows: Iterable[tuple[int, str]]) -> Iterator[str]:
    """From under the start of each text to the left of those below it."""
    above: dict[int, int] = {}
    for place, (depth, _) in enumerate(rows):
        y = MARGIN + LINE_HEIGHT * place + LINE_HEIGHT // 2
        above[depth] = y
        if depth:
            x = MARGIN + (depth - 1) * INDENT + 6
            path = f"M{x} {above[depth - 1] + 8}V{y}H{x + INDENT - 10}"
            yield f'<path d="{path}" fill="none" stroke="black"/>'


def table(root: Node) -> str:
    """Text, indented, in columns."""
    rows = [("  " * depth + node.title, node.facts) for depth, node in root.walk()]
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"{title:<{width}}  {facts}".rstrip() for title, facts in rows)


def as_json(root: Node) -> str:
    """Every node with the depth it stands at, each before its own."""
    plain = [{"depth": depth, **_facts_of(node)} for depth, node in root.walk()]
    return json.dumps(plain, indent=2)


def _facts_of(node: Node) -> dict[str, Any]:
    bare = Node(**{**vars(node), "children": []})
    return {name: value for name, value in asdict(bare).items() if name != "children"}


FORMATS: Final[dict[str, Callable[[Node], str]]] = {
    "table": table,
    "json": as_json,
    "dot": dot,
    "svg": svg,
    "mermaid": mermaid,
}
