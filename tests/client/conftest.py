from collections.abc import Iterator

import pytest

from tests.client.clients import MAKERS, Maker
from tests.client.scripted import Scripted, serving


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with serving() as server:
        yield server


@pytest.fixture(params=list(MAKERS.values()), ids=list(MAKERS))
def make_client(request: pytest.FixtureRequest) -> Maker:
    maker: Maker = request.param
    return maker
