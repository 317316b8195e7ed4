from collections.abc import Iterator

import pytest

from tests.client.scripted import Scripted, serving


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    """A service whose responses the test defines."""
    with serving() as running:
        yield running
