"""What the tests of ``reconcile`` share: the command, registries, what the database says."""

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
from tests import commands
from tests.client.scripted import Asked, Reply, shown

INSTALLATION = "5c2b7a52-7d0e-4d7e-9f43-3a1f5a0c9b11"
ADMIN = "root:admin:admin"
NOW = ("--older-than", "0h")

TASKS = shown({"tasks": []})
NOT_FOUND = Reply(404, b"404 Not Found", {"x-openstack-request-id": "req-1"})


@dataclass(frozen=True)
class Reconciler:
    """The command against one registry and one database."""

    connection: str
    endpoint: str
    capsys: pytest.CaptureFixture[str]

    def arguments(self, *options: str, token: str = ADMIN) -> list[str]:
        of_registry = ["--os-auth-type", "admin_token", "--os-endpoint", self.endpoint]
        return ["reconcile", *self._told(*of_registry, "--os-token", token, *options)]

    def _told(self, *options: str) -> list[str]:
        return ["--connection", self.connection, "--rate", "10000", *options]

    def code(self, *options: str) -> int:
        """The exit code of a run that is told no more than this of the registry."""
        return commands.run("reconcile", *self._told(*options))

    def run(self, *options: str, token: str = ADMIN) -> dict[str, Any]:
        """The counts of a run, which must succeed."""
        code, out, err = self._ended(self.arguments(*options, token=token))
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def refusal(self, *options: str, token: str = ADMIN) -> str:
        """What is said by a run, which must fail."""
        code, _, err = self._ended(self.arguments(*options, token=token))
        assert code == 1
        return err

    def _ended(self, words: list[str]) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = commands.run(*words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def glance(self) -> GlanceAdmin:
        """The registry as the command asks it."""
        named = Namespace(os_auth_type="admin_token", os_endpoint=self.endpoint, os_token=ADMIN)
        return GlanceAdmin(cloud_options.image_adapter(named), RateLimit(10_000))

    def database(self) -> Database:
        return Database(self.connection, 20)

    def announce(
        self, *image_ids: str, age: timedelta = timedelta(0), instance: str = "i-1"
    ) -> None:
        """Leave the relations that killed processes leave, whatever became of the images."""
        created_at = datetime.now(UTC) - age
        announced = [
            NewRelation(
                installation_uuid=INSTALLATION,
                instance_id=instance,
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


class Registry:
    """Answers as an administrator's Glance with the images ``ids``; ``others`` is what differs."""

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
        """A time that fits what was announced from now to a minute and a half ago."""
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
