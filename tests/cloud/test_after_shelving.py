"""Images of shelved servers: users cannot delete them, and Nova deletes them itself."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from tests.cloud.cloud import Cloud, eventually
from tests.cloud.starting import compute_told
from tests.cloud.user_actions import CreatedServers, ServerActions
from tests.servers import Answer

NO_TOKEN: Final = {"send_service_user_token = true": "send_service_user_token = false"}
NO_OFFLOAD: Final = {"[DEFAULT]": "[DEFAULT]\nshelved_offload_time = -1"}
"""A shelved server stays on its host. Nova then powers it on to unshelve it."""

UNSHELVED, POWERED_ON = "SHELVED_OFFLOADED", "SHELVED"
"""The status of a shelved server that Nova unshelves, and of one that Nova only powers on."""


Tell = Callable[[Mapping[str, str]], None]


class ShelvedServers:
    """Shelves servers, and returns the state of their images."""

    def __init__(self, cloud: Cloud, base: str) -> None:
        self._cloud, self._base = cloud, base
        self.actions = ServerActions(cloud)

    def shelve(self, name: str) -> tuple[str, str]:
        """Start and shelve a server, and return the IDs of the server and of its image."""
        server_id = self.actions.server(name, self._base)
        return server_id, self.actions.shelve(server_id, name)

    def status(self, server_id: str) -> str:
        return str(self._cloud.connection("admin").compute.get_server(server_id).status)

    def relation(self, image_id: str) -> dict[str, Any]:
        path = f"/v2/relations?image_id={image_id}&kind=shelved"
        (row,) = self._cloud.glance("GET", path, self._by("admin")).json["relations"]
        return dict(row)

    def ended(self, image_id: str) -> dict[str, Any]:
        """Wait until the relation has ended, and return it."""

        def found() -> dict[str, Any] | None:
            row = self.relation(image_id)
            return row if row["ended_at"] else None

        return eventually(found, "the end of a relation")

    def delete(self, image_id: str, who: str = "alice") -> Answer:
        return self._cloud.glance("DELETE", f"/v2/images/{image_id}", self._by(who))

    def leftovers(self) -> set[str]:
        listed = self._cloud.shown("alice", "image", "usage", "list", "--leftovers")
        return {row["Image ID"] for row in listed}

    def _by(self, who: str) -> dict[str, str]:
        return {"X-Auth-Token": self._cloud.token(who)}


@pytest.fixture(scope="module")
def shelf(cloud: Cloud, created: CreatedServers) -> ShelvedServers:
    return ShelvedServers(cloud, created.images["base"])


@pytest.fixture(scope="module")
def tell(cloud: Cloud) -> Iterator[Tell]:
    with compute_told(cloud) as told:
        yield told


def test_users_cannot_delete_the_image_and_nova_deletes_it_when_it_unshelves(
    shelf: ShelvedServers,
) -> None:
    server_id, image_id = shelf.shelve("unshelved")
    assert shelf.status(server_id) == UNSHELVED
    row = shelf.relation(image_id)
    assert (row["instance_id"], row["source"], row["ended_at"]) == (server_id, "service", None)
    for who in ("alice", "admin"):
        refused = shelf.delete(image_id, who)
        assert (refused.status, refused.json["error"]["code"]) == (409, "image.in-use")
        assert f"1 shelved server ({server_id} of" in refused.json["error"]["message"]
    shelf.actions.unshelve(server_id)
    row = shelf.relation(image_id)
    assert row["ended_at"] == row["image_deleted_at"] is not None
    assert image_id not in shelf.leftovers()


def test_nova_deletes_the_image_when_a_shelved_server_is_deleted(shelf: ShelvedServers) -> None:
    server_id, image_id = shelf.shelve("deleted while shelved")
    shelf.actions.delete(server_id)
    row = shelf.ended(image_id)
    assert row["ended_at"] == row["image_deleted_at"] is not None


def test_nova_deletes_the_image_when_it_powers_the_server_on(
    tell: Tell, shelf: ShelvedServers
) -> None:
    tell(NO_OFFLOAD)
    server_id, image_id = shelf.shelve("powered on")
    assert shelf.status(server_id) == POWERED_ON
    assert shelf.delete(image_id).status == 409
    shelf.actions.unshelve(server_id)
    row = shelf.relation(image_id)
    assert row["ended_at"] == row["image_deleted_at"] is not None


@pytest.mark.parametrize(
    ("changes", "status"),
    [(NO_TOKEN | NO_OFFLOAD, POWERED_ON), (NO_TOKEN, UNSHELVED)],
    ids=["powered on", "unshelved"],
)
def test_nova_compute_without_a_service_token_leaves_the_image_behind(
    tell: Tell, shelf: ShelvedServers, changes: dict[str, str], status: str
) -> None:
    tell(changes)
    server_id, image_id = shelf.shelve(f"left behind from {status}")
    assert shelf.status(server_id) == status
    shelf.actions.unshelve(server_id)
    row = shelf.ended(image_id)
    assert row["image_deleted_at"] is None
    assert image_id in shelf.leftovers()
    assert shelf.delete(image_id).status == 204
    assert image_id not in shelf.leftovers()
