"""A temporary RabbitMQ on loopback, which can be killed and restarted with its stored messages."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kombu.connection import Connection

from tests.servers import PATIENCE, ServerMissing, free_port

BROKER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"


class RabbitMQ:
    """A broker with its own node name, ports and directories."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self.url = f"rabbit://guest:guest@127.0.0.1:{self._port}/"
        node = f"t{self._port}@localhost"
        self._names = free_port()
        settings = directory / "rabbitmq.conf"
        settings.write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\n")
        plugins = directory / "enabled_plugins"
        plugins.write_text("[].\n")
        self._environment = os.environ | {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._log = directory / "broker.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        if not self._processes:
            # otherwise the broker starts an epmd that outlives the tests
            names = self._start(["epmd", "-port", str(self._names), "-address", "127.0.0.1"])
            self._wait(names, lambda: self._connects(self._names))
        self._wait(self._start([BROKER]), self._accepts)

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        self._end(self._processes.pop())

    def stop(self) -> None:
        while self._processes:
            self.kill()

    def add_host(self, name: str) -> str:
        """Add a virtual host, which is a separate bus; return its URL."""
        self._control("add_vhost", name)
        self._control("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
        return f"{self.url}{name}"

    def _control(self, *words: str) -> None:
        command = [CONTROL, "--node", self._environment["RABBITMQ_NODENAME"], *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, timeout=2 * PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr

    def _wait(self, process: "subprocess.Popen[bytes]", answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker does not answer: {self._log.read_text()}")
            time.sleep(0.1)

    @staticmethod
    def _connects(port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return True
        return False

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(probe.recv(1))
        except OSError:
            return False

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._processes.append(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def consumers(url: str, queue: str) -> int:
    """Return the number of consumers of a queue; 0 if there is no such queue.

    :param url: the URL of the bus
    """
    address = url.replace("rabbit://", "amqp://")
    with Connection(address) as connection:  # type: ignore[no-untyped-call]
        try:
            found = connection.default_channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return 0
        return int(found.consumer_count)


@contextmanager
def rabbitmq() -> Iterator[RabbitMQ]:
    """
    :raises ServerMissing: if RabbitMQ is not installed
    """
    if not Path(BROKER).exists() or shutil.which("epmd") is None:
        raise ServerMissing("rabbitmq-server is not installed on this machine")
    with tempfile.TemporaryDirectory() as directory:
        broker = RabbitMQ(Path(directory))
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()
