"""Functions are short."""

import ast
import multiprocessing
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "related_images"
LONGEST = 40


def lengths() -> dict[str, int]:
    """Return the number of lines of each function without its docstring."""
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
    """Computed in a separate process: ``ast`` of CPython 3.11 is not safe with several threads.

    A thread of another test may use ``ast`` when it logs a traceback.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(lengths)


def test_no_function_is_long(found: dict[str, int]) -> None:
    assert {name: lines for name, lines in found.items() if lines > LONGEST} == {}
