"""Draw a tree of images and resources as text, JSON, SVG, and for Graphviz and Mermaid."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from typing import Any, Final

from related_images.client.errors import DrawingFailed

IMAGE: Final = "image"
LONGEST: Final = 60
"""The time in seconds that Graphviz may take."""

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_FEW: Final = 8
"""The number of characters of an ID in a short text."""
_SMALL: Final = 20
"""The number of nodes up to which a picture is readable with all details."""
_GREY: Final = "#9a9a9a"
_SHAPES: Final = {IMAGE: "box", "server": "box", "volume": "cylinder", "volume-snapshot": "note"}
_COLOURS: Final = {IMAGE: "#dbe9fb", "server": "#dff2df", "volume": "#fdeccb"}
_OTHER_COLOUR: Final = "#eee4f5"


@dataclass
class Node:
    """An image or a resource, and what was made from it.

    :ivar type: ``image``, or the type of the resource; ``more`` for a node that stands for others
    :ivar link: how it was made from the node above: the kind of the relation, or ``origin``
    :ivar ended_at: when it was deleted, or its lease ended
    :ivar size: the size in bytes
    :ivar is_asked: whether it is the image that was asked for
    :ivar folded: the numbers of nodes for which this one stands, by type
    """

    type: str
    id: str
    name: str | None = None
    link: str | None = None
    created_at: str | None = None
    ended_at: str | None = None
    size: int | None = None
    project_id: str | None = None
    is_asked: bool = False
    folded: dict[str, int] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The type and the name, or the number of folded nodes."""
        if self.folded:
            numbers = (_number(count, type) for type, count in sorted(self.folded.items()))
            return f"… {', '.join(numbers)} more"
        named = f"{self.type} {_printable(self.name or self.id)}"
        return f"{named} (requested)" if self.is_asked else named

    @property
    def details(self) -> list[str]:
        """ID, creation date, size, project and end, without unknown values."""
        known = (
            self.id if self.name else None,
            self.created_at and f"created {self.created_at[:10]}",
            None if self.size is None else shown_size(self.size),
            self.project_id and f"project {_printable(self.project_id)}",
            self.ended_at and f"deleted {self.ended_at[:10]}",
        )
        return [text for text in known if text]

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Node"]]:
        """Yield this node and those below it with their depths, each before its children."""
        waiting = [(depth, self)]
        while waiting:
            level, node = waiting.pop()
            yield level, node
            waiting += [(level + 1, child) for child in reversed(node.children)]


UrlOf = Callable[[Node], str | None]


def _no_url(_: Node) -> None:
    return None


def shown_size(size: float) -> str:
    """Return a number of bytes with a unit."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"


def _number(count: int, type: str) -> str:
    return f"{count} {type}{'s' * (count != 1)}"


def _printable(text: str) -> str:
    """Replace the characters with which a name could control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def fold(root: Node, width: int) -> None:
    """Keep at most ``width`` children of each node, and replace the others by one node.

    The children with others below them are kept first, then those that have not ended.
    """
    for _, node in root.walk():
        ordered = sorted(node.children, key=lambda it: (not it.children, it.ended_at is not None))
        kept = {id(child) for child in ordered[:width]}
        removed = [child for child in node.children if id(child) not in kept]
        if removed:
            numbers = Counter(below.type for child in removed for _, below in child.walk())
            node.children = [child for child in node.children if id(child) in kept]
            node.children.append(Node("more", "", folded=dict(numbers)))


def _nodes_and_edges(root: Node) -> tuple[list[Node], list[tuple[int, int]]]:
    """Return the nodes, and the edges as pairs of indexes of nodes."""
    nodes = [node for _, node in root.walk()]
    indexes = {id(node): index for index, node in enumerate(nodes)}
    edges = [(indexes[id(node)], indexes[id(child)]) for node in nodes for child in node.children]
    return nodes, edges


def tree(root: Node, *, is_grey: bool = False) -> str:
    """Return the tree as indented text.

    :param is_grey: whether to write what has ended in grey, for a terminal
    """
    lines = []
    waiting = [(root, "", "")]
    while waiting:
        node, before, below = waiting.pop()
        text = f"{node.link}: {node.title}" if node.link else node.title
        details = f"  ({', '.join(node.details)})" if node.details else ""
        line = text + details
        lines.append(before + (f"\x1b[2m{line}\x1b[0m" if is_grey and node.ended_at else line))
        last = len(node.children) - 1
        for index in range(last, -1, -1):
            corner, bar = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
            waiting.append((node.children[index], below + corner, below + bar))
    return "\n".join(lines)


def as_json(root: Node) -> str:
    """Return all nodes with their depths as JSON, each before its children."""
    names = [field.name for field in fields(Node) if field.name != "children"]
    nodes = [
        {"depth": depth, **{name: getattr(node, name) for name in names}}
        for depth, node in root.walk()
    ]
    return json.dumps(nodes, indent=2)


def dot(
    root: Node,
    url_of: UrlOf = _no_url,
    *,
    is_short: bool | None = None,
    is_vertical: bool = False,
) -> str:
    """Return the tree in the language of Graphviz.

    :param url_of: returns the URL to which a node links; ``None`` for no link
    :param is_short: whether to show IDs and projects only as tooltips; ``None``: in large pictures
    :param is_vertical: whether children are below their parents, not to the right of them
    """
    direction = "TB" if is_vertical else "LR"
    nodes, edges = _nodes_and_edges(root)
    if is_short is None:
        is_short = len(nodes) > _SMALL
    separation = 0.4 if is_vertical or is_short else 0.7
    lines = [
        "digraph lineage {",
        f'  graph [rankdir={direction}, nodesep=0.15, ranksep={separation}, fontname="Helvetica"];',
        # the margin is wide, because a browser may have only wider fonts
        '  node [fontname="Helvetica", fontsize=10, style="filled,rounded", color="#606060", '
        'margin="0.2,0.06"];',
        '  edge [fontname="Helvetica", fontsize=9, color="#606060", fontcolor="#606060"];',
    ]
    lines += [
        f"  n{index} [{_attributes(node, url_of(node), is_short)}];"
        for index, node in enumerate(nodes)
    ]
    for above, below in edges:
        link = nodes[below].link
        label = f' [label="{link}"]' if link else ""
        lines.append(f"  n{above} -> n{below}{label};")
    return "\n".join([*lines, "}"])


def _attributes(node: Node, url: str | None, is_short: bool) -> str:
    title, *details = map(escape, _short_lines(node) if is_short else _lines(node))
    given = {
        "shape": "plaintext" if node.folded else _SHAPES.get(node.type, "box"),
        "fillcolor": "white" if node.folded else _COLOURS.get(node.type, _OTHER_COLOUR),
    }
    if node.ended_at:
        given |= {"style": "filled,rounded,dashed", "fillcolor": "#f4f4f4"}
        given |= {"color": _GREY, "fontcolor": _GREY}
    if node.is_asked:
        given |= {"penwidth": "3", "color": "#c03030"}
    if not node.folded:
        owner = f", project {node.project_id}" if node.project_id else ""
        given["tooltip"] = escape(_printable(f"{node.type} {node.id}{owner}"))
    if url:
        given |= {"URL": escape(url), "target": "_top"}
    label = "<br/>".join([f"<b>{title}</b>", *details])
    return ", ".join([f"label=<{label}>", *(f'{name}="{value}"' for name, value in given.items())])


def _lines(node: Node) -> Sequence[str]:
    """Return the title, the ID, and the other details of a node in a picture."""
    details = node.details
    first = details[:1] if node.name else []
    others = ", ".join(details[len(first) :])
    return [text for text in (node.title, *first, others) if text]


def _short_lines(node: Node) -> Sequence[str]:
    name = node.name or f"{node.id[:_FEW]}…"
    return [
        replace(node, name=name).title,
        ", ".join(replace(node, name=None, project_id=None).details),
    ]


def svg(root: Node, url_of: UrlOf = _no_url, **layout: bool) -> str:
    """Return the tree as an SVG image, drawn by Graphviz.

    :param url_of: see :func:`dot`
    :param layout: see :func:`dot`
    :raises DrawingFailed: if Graphviz is not installed, or fails
    """
    try:
        drawn = subprocess.run(
            ["dot", "-Tsvg"],
            input=dot(root, url_of, **layout),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=True,
        )
    except FileNotFoundError as error:
        raise DrawingFailed(
            "the program `dot` was not found; install Graphviz, or draw the output of another "
            "format elsewhere"
        ) from error
    except subprocess.SubprocessError as error:
        raise DrawingFailed(
            f"Graphviz did not draw the lineage: {error}; draw fewer nodes"
        ) from error
    return drawn.stdout.rstrip("\n")


def mermaid(root: Node) -> str:
    """Return the tree in the language of Mermaid."""
    nodes, edges = _nodes_and_edges(root)
    lines = ["graph LR"]
    for index, node in enumerate(nodes):
        text = "<br/>".join(escape(line.replace('"', "'"), quote=False) for line in _lines(node))
        mark = "asked" if node.is_asked else "ended" if node.ended_at else ""
        lines.append(f'  n{index}["{text}"]{":::" + mark if mark else ""}')
    for above, below in edges:
        link = nodes[below].link
        arrow = f"-- {link} -->" if link else "-->"
        lines.append(f"  n{above} {arrow} n{below}")
    lines.append("  classDef asked stroke:#c03030,stroke-width:3px")
    lines.append(f"  classDef ended color:{_GREY},stroke:{_GREY},stroke-dasharray:4")
    return "\n".join(lines)


FORMATS: Final[dict[str, Callable[[Node], Any]]] = {
    "tree": tree,
    "json": as_json,
    "dot": dot,
    "svg": svg,
    "mermaid": mermaid,
}
