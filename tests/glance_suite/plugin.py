"""A pytest plugin that puts the filter into every pipeline that Glance's tests write.

``GLANCE_SUITE`` is ``off`` for unchanged pipelines, ``on`` for the filter in front of ``rootapp``,
or ``tuple`` for the filter behind :mod:`.asserting`, which adds instance headers to every request.
"""

import inspect
import os
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import TestCase

import pytest

MODE = os.environ["GLANCE_SUITE"]
TEMPLATE = Path(os.environ["GLANCE_SUITE_DATABASE"])
INSERTED = {"on": "related-images", "tuple": "asserting related-images"}

SECTIONS = """
[filter:asserting]
paste.filter_factory = tests.glance_suite.asserting:filter_factory
[filter:related-images]
use = egg:related-images#instance_aware
connection = sqlite:///{database}
"""


def with_filter(text: str, inserted: str, database: Path) -> str:
    """Return the paste file ``text`` with ``inserted`` before the root app of each pipeline."""
    changed, count = re.subn(
        r"^(\s*pipeline\s*=.*\s)(rootapp)\s*$", rf"\1{inserted} \2", text, flags=re.MULTILINE
    )
    if not count:
        raise RuntimeError("no pipeline that ends in rootapp was found in the paste file")
    return changed + SECTIONS.format(database=database)


def pytest_configure(config: pytest.Config) -> None:
    """Patch the function with which the suite writes its paste file."""
    from glance.tests import functional

    if MODE in INSERTED:
        base = functional.SynchronousAPIBase
        base.setup_simple_paste = _inserting(base.setup_simple_paste)


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> list[Any] | None:
    """Skip helpers that derive from TestCase and cannot be instantiated."""
    if isinstance(obj, type) and issubclass(obj, TestCase):
        own = inspect.signature(obj.__init__).parameters.values()
        needed = [p for p in own if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        return [] if len(needed) > 1 else None
    return None


def _inserting(original: Any) -> Any:
    def setup_simple_paste(test: Any) -> None:
        original(test)
        database = Path(test.test_dir) / "related-images.db"
        shutil.copy(TEMPLATE, database)
        paste = Path(test.paste_config)
        paste.write_text(with_filter(paste.read_text(), INSERTED[MODE], database))

    return setup_simple_paste
