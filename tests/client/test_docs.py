"""The snippets of the page about the client run, and it documents every name."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from related_images import client
from related_images.client import ClientError, InstanceAwareImageService, RelationsClient, backups
from tests import doc_blocks
from tests.servers import ServedGlance

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
STORES = """
[DEFAULT]
enabled_backends = local:file, second:file
[second]
filesystem_store_datadir = {directory}/second
"""


def test_the_snippets_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = STORES.format(directory=tmp_path)
    with ServedGlance(tmp_path / "data", glance_conf=configuration):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "data/clouds.yaml")
        names: dict[str, object] = {}
        snippets = doc_blocks.snippets(PAGE.read_text())
        for number, snippet in enumerate(snippets, 1):
            exec(compile(snippet, f"{PAGE.name}, snippet {number}", "exec"), names)
    assert len(snippets) == 16
    printed = capsys.readouterr().out
    assert printed.startswith("backup\n")
    assert "inst-1 boot" in printed
    assert printed.count(" removed ") == 2
    assert "image.not-found 404 req-" in printed
    assert "limit.malformed limit=0 is not" in printed
    assert "parameter.malformed latest_before='yesterday' is not" in printed
    assert "parameter.unknown the query parameter 'knd' is unknown; allowed are:" in printed


def test_every_error_and_its_code_are_documented() -> None:
    text = PAGE.read_text()
    public = [getattr(client, name) for name in client.__all__]
    errors = [it for it in public if isinstance(it, type) and issubclass(it, ClientError)]
    rows = [f"| `{error.__name__}` | `{error.code}` |" for error in errors]
    assert len(rows) == 23
    assert [row for row in rows if row not in text] == []


def test_every_name_is_documented() -> None:
    text = PAGE.read_text()
    assert [name for name in client.__all__ if name not in text] == []


def _as_on_the_page(name: str, method: Callable[..., object]) -> str:
    """Return the method as in the tables: optional and keyword-only parameters end with ``=``."""
    _self, *given = inspect.signature(method).parameters.values()
    shown = [
        f"**{it.name}"
        if it.kind is it.VAR_KEYWORD
        else it.name
        + ("" if it.kind is it.POSITIONAL_OR_KEYWORD and it.default is it.empty else "=")
        for it in given
    ]
    return f"{name}({', '.join(shown)})"


def test_the_tables_list_every_method() -> None:
    """The first table is for ``InstanceAwareImageService``, the second for ``RelationsClient``."""
    tables = PAGE.read_text().split("| method | returns |\n")[1:]
    rows = [re.findall(r"^\| `(\w+\(.*?\))` \|", table.split("\n\n")[0], re.M) for table in tables]
    classes = (InstanceAwareImageService, RelationsClient)
    for found, owner in zip(rows, classes, strict=True):
        methods = {name: it for name, it in vars(owner).items() if inspect.isfunction(it)}
        public = [_as_on_the_page(*it) for it in methods.items() if not it[0].startswith("_")]
        assert sorted(found) == sorted(public)


def test_every_name_of_backups_is_documented() -> None:
    text = PAGE.read_text()
    assert [name for name in backups.__all__ if name not in text] == []
