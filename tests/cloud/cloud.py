"""A running cloud, and functions with which tests send requests to it."""

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
from tests.rabbitmq import RabbitMQ, consumers
from tests.servers import Answer, ask

Found = TypeVar("Found")

PATIENCE: Final = 300
"""Seconds to wait for any result. All processes of the cloud share one machine."""

BIN: Final = Path(sys.prefix) / "bin"


def eventually(ask: Callable[[], Found | None], what: str) -> Found:
    """Call ``ask`` until it returns a true value, and return this value.

    :raises AssertionError: after :data:`PATIENCE` seconds
    """
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
        """Return the openstacksdk connection of a user; the same one each time."""
        if who not in self._connections:
            self._connections[who] = self.connect(who)
        return self._connections[who]

    def connect(self, who: str) -> Any:
        """Return a new openstacksdk connection of a user, which reads the catalogue again."""
        config = OpenStackConfig(config_files=[str(self.plan.clouds)])
        return Connection(config=config.get_one(who))

    def consumers(self, queue: str) -> int:
        """Return the number of consumers of a queue on the bus; 0 if there is no such queue."""
        return consumers(self.plan.bus, queue)

    def token(self, who: str) -> str:
        return str(self.connection(who).auth_token)

    def glance(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request with only these headers to Glance."""
        return ask(self.plan.port("glance"), method, path, headers, body)

    def openstack(self, who: str, *words: str) -> str:
        """Run an ``openstack`` command that must succeed, and return its output."""
        done = self.command("openstack", *words, OS_CLOUD=who)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(self, who: str, *words: str) -> Any:
        """Run an ``openstack`` command that must succeed, and return its JSON output."""
        return json.loads(self.openstack(who, *words, "-f", "json"))

    def command(
        self, name: str, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the clouds.yaml of the cloud."""
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
