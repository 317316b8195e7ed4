"""The code stays in small pieces."""

import ast
import multiprocessing
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "related_images"
LONGEST = 40


def lengths() -> dict[str, int]:
    """Lines of each function, its docstring left out."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{path.name}:{node.name}:{node.lineno}"] = _lines(node)
    return found


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and ast.get_docstring(node) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    """From a process of its own: two threads disturb each other in CPython 3.11's ``ast``.

    A thread that another test left comes to it when it logs an error with its traceback.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(lengths)


def test_no_function_is_long(found: dict[str, int]) -> None:
    assert {name: lines for name, lines in found.items() if lines > LONGEST} == {}
