from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.heat.engine import compute, stacks
from tests.heat.engine.stacks import User


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    stacks.start_engine()


@pytest.fixture
def user() -> User:
    """A user with a recording role."""
    return User(f"project-{uuid4()}", "member,service")


@pytest.fixture
def member() -> User:
    """A user without a recording role."""
    return User(f"project-{uuid4()}")


@pytest.fixture
def nova(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fake Nova."""
    with compute.computing() as url:
        monkeypatch.setenv(stacks.NOVA, url)
        yield
