"""A running cloud as its people and programs use it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.cloud.plan import Plan
from tests.cloud.processes import Processes
from tests.rabbitmq import RabbitMQ
from tests.servers import Answer, ask

Found = TypeVar("Found")

PATIENCE: Final = 300
"""Seconds that anything may take in a cloud whose processes share a machine."""

BIN: Final = Path(sys.prefix) / "bin"


def eventually(ask: Callable[[], Found | None], what: str) -> Found:
    """What ``ask`` gives, as soon as that is something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE} seconds for {what}")


class Cloud:
    def __init__(self, plan: Plan, processes: Processes, bus: RabbitMQ) -> None:
        self.plan = plan
        self.bus = bus
        self.processes = processes
        self._connections: dict[str, Any] = {}

    def connection(self, who: str) -> Any:
        """The cloud as this user sees it: a connection of openstacksdk."""
        if who not in self._connections:
            self._connections[who] = self.connect(who)
        return self._connections[who]

    def connect(self, who: str) -> Any:
        """A connection of its own, which asks for the catalogue anew."""
        config = OpenStackConfig(config_files=[str(self.plan.clouds)])
        return Connection(config=config.get_one(who))

    def token(self, who: str) -> str:
        return str(self.connection(who).auth_token)

    def glance(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Ask Glance with these headers and no others."""
        return ask(self.plan.port("glance"), method, path, headers, body)

    def openstack(self, who: str, *words: str) -> str:
        """Run the ``openstack`` command, which must succeed; gives what it prints."""
        done = self.command("openstack", *words, OS_CLOUD=who)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(self, who: str, *words: str) -> Any:
        """What the ``openstack`` command shows, as it does for programs."""
        return json.loads(self.openstack(who, *words, "-f", "json"))

    def command(
        self, name: str, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as someone who has the cloud's clouds.yaml."""
        clouds = {"OS_CLIENT_CONFIG_FILE": str(self.plan.clouds)}
        return subprocess.run(
            [BIN / name, *words],
            env={**os.environ, **clouds, **environment},
            cwd=self.plan.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
