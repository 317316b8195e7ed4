"""Helpers for the tests of ``reconcile``: the command, scripted Glances, the database."""

import json
from argparse import Namespace
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import pytest

from related_images.db import (
    Database,
    Filters,
    NewRelation,
    Relation,
    relation_queries,
    relations,
)
from related_images.manage import cloud_options
from related_images.manage.glance_admin import GlanceAdmin
from related_images.manage.rate_limit import RateLimit
from related_images.model import InstanceRef
from tests import commands
from tests.client.scripted import Asked, Reply, shown

INSTALLATION = "5c2b7a52-7d0e-4d7e-9f43-3a1f5a0c9b11"
ADMIN = "root:admin:admin"
NOW = ("--older-than", "0h")

TASKS = shown({"tasks": []})
NOT_FOUND = Reply(404, b"404 Not Found", {"x-openstack-request-id": "req-1"})


@dataclass(frozen=True)
class Reconciler:
    """The command with one Glance and one database."""

    connection: str
    endpoint: str
    capsys: pytest.CaptureFixture[str]

    def arguments(self, *options: str, token: str = ADMIN) -> list[str]:
        glance_options = ["--os-auth-type", "admin_token", "--os-endpoint", self.endpoint]
        return ["reconcile", *self._arguments(*glance_options, "--os-token", token, *options)]

    def _arguments(self, *options: str) -> list[str]:
        return ["--connection", self.connection, "--rate", "10000", *options]

    def code(self, *options: str) -> int:
        """Run the command with only these options for Glance, and return its exit code."""
        return commands.run("reconcile", *self._arguments(*options))

    def run(self, *options: str, token: str = ADMIN) -> dict[str, Any]:
        """Run the command, assert that it succeeds, and return its counts."""
        code, out, err = self._run(self.arguments(*options, token=token))
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def refusal(self, *options: str, token: str = ADMIN) -> str:
        """Run the command, assert that it fails, and return its error."""
        code, _, err = self._run(self.arguments(*options, token=token))
        assert code == 1
        return err

    def _run(self, words: list[str]) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = commands.run(*words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def glance(self) -> GlanceAdmin:
        """Glance's client of the command."""
        named = Namespace(os_auth_type="admin_token", os_endpoint=self.endpoint, os_token=ADMIN)
        return GlanceAdmin(cloud_options.image_adapter(named), RateLimit(10_000))

    def database(self) -> Database:
        return Database(self.connection, 20)

    def announce(
        self, *image_ids: str, age: timedelta = timedelta(0), instance: str = "i-1"
    ) -> None:
        """Record relations as killed processes leave them, with or without images."""
        created_at = datetime.now(UTC) - age
        announced = [
            NewRelation(
                instance=InstanceRef(INSTALLATION, instance),
                image_id=image_id,
                kind="snapshot",
                label=None,
                source="service",
                project_id="demo",
                created_at=created_at + timedelta(microseconds=number),
            )
            for number, image_id in enumerate(image_ids)
        ]
        self.database().write(
            lambda connection: [relations.record(connection, new) for new in announced]
        )

    def relations(self, image_id: str) -> list[Relation]:
        return self.database().read(relation_queries.find, Filters(image_id=image_id), 100)

    def is_marked(self, image_id: str) -> bool:
        (relation,) = self.relations(image_id)
        return relation.image_deleted_at is not None


def new_id() -> str:
    return str(uuid4())


class FakeGlance:
    """Responds as Glance with the images ``ids``; ``others`` overrides responses."""

    def __init__(self, *ids: str, **others: Reply) -> None:
        self.ids = ids
        self.others = others

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/v2/tasks":
            return self.others.get("tasks", TASKS)
        if asked.path == "/v2/images":
            return self.others.get("listing", self._listing(asked))
        return self.others.get("single", NOT_FOUND)

    def made_at(self) -> datetime:
        """A creation time that matches announcements of the last minute and a half."""
        return datetime.now(UTC) - timedelta(seconds=30)

    def knows(self, image_id: str) -> bool:
        return image_id in self.ids

    def _listing(self, asked: Asked) -> Reply:
        query = parse_qs(asked.query)
        wanted = query["id"][0].removeprefix("in:").split(",") if "id" in query else self.ids
        made_at = f"{self.made_at():%Y-%m-%dT%H:%M:%SZ}"
        images = [{"id": id, "created_at": made_at, "owner": "demo"} for id in wanted]
        known = [image for image in images if self.knows(image["id"])]
        return shown({"images": known if query["os_hidden"] == ["false"] else []})
