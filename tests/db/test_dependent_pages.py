"""Small pages of dependents, with each driver and in each version that is installed."""

import pytest

from related_images.db import dependents, relations
from related_images.db.database import Database
from related_images.db.dependents import PagePosition, Wanted
from related_images.model import BOOT
from tests.db.samples import new

SERVERS = [f"vm-{number}" for number in range(5)]


@pytest.mark.parametrize(
    "image_id", ["5f0c3a3e-3f1c-4a53-9b0c-0d5a6c1f2e01", "41424344-4546-4748-494a-4b4c4d4e4f50"]
)
def test_the_next_page_begins_among_the_servers_of_an_image(
    database: Database, image_id: str
) -> None:
    """The bytes of the first ID are no text in UTF-8; those of the second one are."""
    for server in SERVERS:
        database.write(relations.record, new(server, image_id, BOOT))
    found: list[tuple[str, str]] = []
    after: PagePosition | None = None
    for _ in SERVERS:
        page = dependents.dependents(database, Wanted(image_id), 2, after)
        found += [(it.image_id, it.instance_id) for it in page.items]
        after = page.next
        if after is None:
            break
    assert found == [(image_id, server) for server in SERVERS]
