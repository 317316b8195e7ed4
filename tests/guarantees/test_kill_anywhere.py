"""Four writers and a server that is killed repeatedly: every image has its relation."""

import http.client
import os
import random
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.guarantees.reconciling import ADMIN, INSTALLATION, Reconciler
from tests.servers import ServedGlance

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("RELATED_IMAGES_KILLS", "3"))
"""The number of kills of the server."""

WRITERS = 4
SERVICE = "nova:service:member,service"


class Writer(threading.Thread):
    """Creates and deletes images of its own instance until ``stop`` is set, in spite of kills.

    :ivar acknowledged: the images for whose creation the response was 201
    """

    def __init__(self, served: ServedGlance, stop: threading.Event) -> None:
        super().__init__()
        self.instance = f"i-{uuid4()}"
        self.acknowledged: list[str] = []
        self._served = served
        self._stop_asked = stop

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                self._write()
            except (OSError, http.client.HTTPException):
                self._stop_asked.wait(0.05)

    def _write(self) -> None:
        headers = {"X-Installation-UUID": INSTALLATION, "X-Instance-ID": self.instance}
        body = {"name": self.instance, "disk_format": "raw", "container_format": "bare"}
        answer = self._served.request("POST", "/v2/images", SERVICE, headers, body)
        if answer.status == 201:
            assert answer.headers["X-Relation-Recorded"] == "snapshot"
            self.acknowledged.append(answer.json["id"])
            if len(self.acknowledged) % 4 == 0:
                self._served.request("DELETE", f"/v2/images/{answer.json['id']}", ADMIN)


def all_of(served: ServedGlance, path: str, name: str) -> list[dict[str, Any]]:
    """Return all pages of a list."""
    found: list[dict[str, Any]] = []
    following: str | None = path
    while following:
        page = served.request("GET", following, ADMIN).json
        found += page[name]
        following = page.get("next")
    return found


def test_no_image_lacks_its_relation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, stop = random.Random(), threading.Event()
    with ServedGlance(tmp_path) as served:
        writers = [Writer(served, stop) for _ in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            stop.wait(chance.uniform(0.5, 2.5))
            served.kill()
            served.start()
        stop.wait(1)
        stop.set()
        for writer in writers:
            writer.join()
        images = {image["id"]: image["name"] for image in all_of(served, "/v2/images", "images")}
        assert without_relation(served, images) == []
        for writer in writers:
            shown = all_of(served, images_of(writer.instance), "images")
            own = {id for id, name in images.items() if name == writer.instance}
            assert {image["id"] for image in shown} == own
        Reconciler(f"sqlite:///{tmp_path}/related-images.db", served.url, capsys).run(
            "--older-than", "0h"
        )
        relations = all_of(served, "/v2/relations?limit=1000", "relations")
    live = {row["image_id"] for row in relations if row["image_deleted_at"] is None}
    assert live == set(images)
    created = sum(len(writer.acknowledged) for writer in writers)
    assert {id for writer in writers for id in writer.acknowledged} <= {
        row["image_id"] for row in relations
    }
    with capsys.disabled():
        print(f"\n{KILLS} kills, {created} images acknowledged, 0 without a relation")


def images_of(instance: str) -> str:
    return f"/v2/images?installation_uuid={INSTALLATION}&instance_id={instance}&limit=1000"


def without_relation(served: ServedGlance, images: dict[str, str]) -> list[str]:
    relations = all_of(served, "/v2/relations?limit=1000", "relations")
    related = {(row["image_id"], row["instance_id"]) for row in relations}
    return [id for id, instance in images.items() if (id, instance) not in related]
