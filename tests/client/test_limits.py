"""``limit`` is the number of items of all pages, ``page_size`` that of one page."""

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import requests
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from related_images.client import (
    InstanceAwareImageService,
    InstanceRef,
    NewOrigin,
    RelationsClient,
)
from related_images.errors import LimitMalformed
from tests.client.clients import INSTALLATION, SERVICE
from tests.client.scripted import Scripted
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow


class Asking:
    """Both clients for one endpoint, and the URLs that they requested.

    The family is an image, a server started from it with three backups, and a server started from
    the first of these with a snapshot.
    """

    def __init__(self, endpoint: str) -> None:
        self.urls: list[str] = []
        transport = requests.Session()
        transport.hooks["response"].append(lambda answer, **_: self.urls.append(answer.url))
        session = Session(auth=Token(endpoint, SERVICE), session=transport)
        self.service = InstanceAwareImageService(
            Adapter(session, service_type="image"), INSTALLATION
        )
        self.relations = RelationsClient(Adapter(session, service_type="image"))
        self.instance = f"inst-{uuid4()}"
        self.root, self.leaf = str(uuid4()), str(uuid4())
        self.backups = [str(uuid4()) for _ in range(3)]

    def make_family(self) -> None:
        service = self.service
        formats: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}
        service.create(f"{self.instance}-root", kind="snapshot", id=self.root)
        service.attach(self.instance, self.root, kind="boot")
        for image_id in self.backups:
            service.create(self.instance, kind="backup", id=image_id, **formats)
            service.upload(image_id, b"data")
        child = f"{self.instance}-child"
        service.attach(child, self.backups[0], kind="boot", instance_project_id="another")
        service.create(f"{self.instance}-child", kind="snapshot", id=self.leaf)
        volumes = [InstanceRef(INSTALLATION, f"{self.instance}-{n}", "volume") for n in range(3)]
        now = datetime.now(UTC)
        self.relations.record_origins([NewOrigin(volume, None, now) for volume in volumes])
        service.info()
        self.relations.info()


LISTS: Final[dict[str, Callable[..., Iterator[Any]]]] = {
    "list": lambda a, **sizes: a.service.list(a.instance, **sizes),
    "RelationsClient.images": lambda a, **sizes: a.relations.images(descends_from=a.root, **sizes),
    "backups": lambda a, **sizes: a.service.backups(a.instance, **sizes),
    "relations": lambda a, **sizes: a.service.relations(a.instance, **sizes),
    "instances": lambda a, **sizes: a.service.instances(**sizes),
    "usages": lambda a, **sizes: a.service.usages(a.backups, **sizes),
    "ancestry": lambda a, **sizes: a.service.ancestry(a.leaf, **sizes),
    "descendants": lambda a, **sizes: a.service.descendants(a.root, **sizes),
    "dependents": lambda a, **sizes: a.service.dependents(a.root, **sizes),
    "RelationsClient.relations": lambda a, **sizes: a.relations.relations(**sizes),
    "RelationsClient.relations_of_image": lambda a, **sizes: a.relations.relations_of_image(
        a.root, **sizes
    ),
    "RelationsClient.origins": lambda a, **sizes: a.relations.origins(**sizes),
    "RelationsClient.instances": lambda a, **sizes: a.relations.instances(**sizes),
    "RelationsClient.usages": lambda a, **sizes: a.relations.usages(a.backups, **sizes),
    "RelationsClient.ancestry": lambda a, **sizes: a.relations.ancestry(a.leaf, **sizes),
    "RelationsClient.descendants": lambda a, **sizes: a.relations.descendants(a.root, **sizes),
    "RelationsClient.dependents": lambda a, **sizes: a.relations.dependents(a.root, **sizes),
    "RelationsClient.dependents_by_project": lambda a, **sizes: a.relations.dependents_by_project(
        a.root, **sizes
    ),
}


@pytest.fixture(scope="module")
def family(glance: ServedGlance) -> Asking:
    asking = Asking(glance.url)
    asking.make_family()
    return asking


def asked_for(urls: list[str]) -> list[int]:
    """Return the number of items in each request; 0 without a number."""
    queries = [parse_qs(urlsplit(url).query) for url in urls]
    return [
        len(query["image_ids"][0].split(",")) if "image_ids" in query else int(*query["limit"])
        for query in queries
    ]


def test_every_list_method_is_tested() -> None:
    listing = [
        name if owner is InstanceAwareImageService else f"{owner.__name__}.{name}"
        for owner in (InstanceAwareImageService, RelationsClient)
        for name, method in vars(owner).items()
        if not name.startswith("_")
        and inspect.isfunction(method)
        and getattr(method.__annotations__["return"], "__origin__", None) is Iterator
    ]
    assert sorted(listing) == sorted(LISTS)


@pytest.mark.parametrize("name", LISTS)
def test_a_limit_counts_the_items_of_all_pages(family: Asking, name: str) -> None:
    everything = list(LISTS[name](family))
    assert len(everything) >= 2
    family.urls.clear()
    assert list(LISTS[name](family, limit=2, page_size=1)) == everything[:2]
    asked = asked_for(family.urls)
    # pages of dependents may be empty
    assert set(asked) == {1} if name.endswith("dependents") else asked == [1, 1]
    family.urls.clear()
    assert list(LISTS[name](family, limit=1)) == everything[:1]
    assert asked_for(family.urls) == [1]


@pytest.mark.parametrize("name", [name for name in LISTS if not name.endswith("instances")])
def test_all_pages_of_a_size_are_read(family: Asking, name: str) -> None:
    everything = list(LISTS[name](family))
    family.urls.clear()
    assert list(LISTS[name](family, page_size=1)) == everything
    assert len(family.urls) >= len(everything)
    assert set(asked_for(family.urls)) == {1}


@pytest.mark.parametrize("wrong", [-1, 0, 1.0, "x", "", True, [1], 10**9], ids=repr)
@pytest.mark.parametrize("size", ["limit", "page_size"])
@pytest.mark.parametrize("name", LISTS)
def test_an_invalid_limit_is_refused_before_a_request(
    scripted: Scripted, name: str, size: str, wrong: Any
) -> None:
    asking = Asking(scripted.url)
    with pytest.raises(LimitMalformed, match=f"^{size}=.* is not a whole number from 1 to 99999"):
        LISTS[name](asking, **{size: wrong})
    assert not scripted.asked
