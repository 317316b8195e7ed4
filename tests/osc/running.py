"""Run commands of the plugin, in this process or with the program ``openstack``."""

import io
import json
import logging
import os
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from keystoneauth1.adapter import Adapter
from openstack.connection import Connection
from osc_lib.command.command import Command

from related_images.osc.plugin import Clients
from tests.client.clients import session
from tests.servers import PATIENCE, ServedGlance

OPENSTACK = Path(sys.executable).parent / "openstack"
SERVICE_TOKEN = "nova:service:service"


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    errors: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = json.loads(self.said)
        return shown

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]


class Errors(logging.Handler):
    """Keeps the errors that a command logs; the program prints them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass(frozen=True)
class Cloud:
    """The endpoint of Glance, and a token."""

    url: str
    token: str
    compute: str = ""

    def run(self, command: type[Command], *arguments: str) -> Outcome:
        """Run a command in this process with real clients. Its exceptions are not caught."""
        app = self._app()
        running = command(app, None)
        errors = Errors()
        running.log.addHandler(errors)
        try:
            code = running.run(running.get_parser("it").parse_args(arguments))
        finally:
            running.log.removeHandler(errors)
        return Outcome(code, app.stdout.getvalue(), "\n".join(errors.lines))

    def listed(self, command: type[Command], *arguments: str) -> Outcome:
        """Run a command with JSON output."""
        return self.run(command, "-f", "json", *arguments)

    def _app(self) -> Any:
        adapter = Adapter(session(self.url, self.token), service_type="image")
        manager = SimpleNamespace(
            related_images=Clients(adapter),
            auth_ref=None,
            sdk_connection=Connection(
                session=session(self.url, self.token),
                compute_endpoint_override=self.compute or None,
            ),
        )
        return SimpleNamespace(
            client_manager=manager,
            stdout=io.StringIO(),
            options=SimpleNamespace(debug=False),
            prepare_to_run_command=lambda command: None,
        )

    def openstack(self, *arguments: str) -> Outcome:
        """Run the program as a process."""
        return openstack(*self._identity, *arguments, **self._compute)

    def at_a_terminal(self, *arguments: str) -> tuple[int, str]:
        """Run the program with a terminal as stderr; return the exit code and the text on it."""
        terminal, end = os.openpty()
        termios.tcsetwinsize(end, (24, 80))
        with subprocess.Popen(
            [OPENSTACK, *self._identity, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=end,
            env=_environment(),
        ) as running:
            os.close(end)
            seen = b"".join(iter(lambda: _read(terminal), b""))
            os.close(terminal)
            return running.wait(PATIENCE), seen.decode()

    @property
    def _compute(self) -> dict[str, str]:
        """The options for the endpoints of Nova and Cinder, since there is no catalog."""
        services = ("COMPUTE", "BLOCK_STORAGE") if self.compute else ()
        return {f"OS_{name}_ENDPOINT_OVERRIDE": self.compute for name in services}

    @property
    def _identity(self) -> tuple[str, ...]:
        said = ("--os-auth-type", "admin_token", "--os-token", self.token)
        return (*said, "--os-endpoint", self.url)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1024)
    except OSError:  # the other end is closed
        return b""


def _environment() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("OS_")}


def openstack(*arguments: str, **environment: str) -> Outcome:
    """Run the program with ``environment`` as its only configuration."""
    done = subprocess.run(
        [OPENSTACK, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=_environment() | environment,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Instance:
    """A server of this test alone, in a project of its own."""

    glance: ServedGlance
    installation: str
    id: str
    project: str

    def another(self) -> "Instance":
        """Return another server of the same installation and project."""
        return replace(self, id=f"{self.id}-{uuid4().hex[:6]}")

    def image(self, name: str, properties: Mapping[str, str] | None = None, /, **told: str) -> str:
        """Create an image of the server as Nova does, and return its ID.

        :param properties: further properties of the image
        :param told: further instance headers, such as ``kind``
        """
        headers = {
            "X-Service-Token": SERVICE_TOKEN,
            "X-Installation-UUID": self.installation,
            "X-Instance-ID": self.id,
            **{f"X-Relation-{word.title()}": text for word, text in told.items()},
        }
        formats = {"disk_format": "raw", "container_format": "bare"}
        body = {"name": name, **formats, **(properties or {})}
        made = self.glance.request("POST", "/v2/images", self.member, headers, body)
        assert made.status == 201, made.body
        return str(made.json["id"])

    def fill(self, image_id: str) -> str:
        sent = self.glance.request("PUT", f"/v2/images/{image_id}/file", self.member, body=b"data")
        assert sent.status == 204
        return image_id

    def elsewhere(self) -> "Instance":
        """Return the server with the same ID in another installation."""
        return Instance(self.glance, str(uuid4()), self.id, self.project)

    @property
    def member(self) -> str:
        return f"alice:{self.project}:member"

    @property
    def recorder(self) -> str:
        return f"nova:{self.project}:member,service"
