from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests

from tests.client.scripted import Scripted, serving
from tests.osc.compute import Compute
from tests.osc.running import Cloud, Instance
from tests.servers import ServedGlance


@pytest.fixture
def instance(glance: ServedGlance) -> Instance:
    """A server without relations."""
    name = uuid4().hex[:8]
    return Instance(glance, str(uuid4()), f"web-{name}", f"project-{name}")


@pytest.fixture
def compute_url() -> str:
    """The endpoint of the compute service; empty if the cloud has none."""
    return ""


@pytest.fixture
def member(instance: Instance, compute_url: str) -> Cloud:
    """The cloud for a member of the project of the server."""
    return Cloud(instance.glance.url, instance.member, compute_url)


@pytest.fixture
def recorder(instance: Instance, compute_url: str) -> Cloud:
    """The cloud for a member of that project with a recording role."""
    return Cloud(instance.glance.url, instance.recorder, compute_url)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with serving() as server:
        yield server


@pytest.fixture
def nova(scripted: Scripted) -> Compute:
    """A compute service without servers."""
    compute = Compute(scripted)
    scripted.script = compute.answer
    return compute


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The requests that were sent, by method and path."""
    counted, real = Counter[str](), requests.Session.send

    def send(self: Any, request: Any, **options: Any) -> Any:
        counted[f"{request.method} {urlsplit(request.url).path}"] += 1
        return real(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", send)
    return counted
