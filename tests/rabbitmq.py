"""A throwaway RabbitMQ on loopback, that may be killed and comes back with what it had stored."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.servers import PATIENCE, ServerMissing, free_port

BROKER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMQ:
    """One broker with a node name, ports and directories of its own."""

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
            # started by the broker itself, it would outlive us
            self._start(["epmd", "-port", str(self._names), "-address", "127.0.0.1"])
        broker = self._start([BROKER])
        deadline = time.monotonic() + 2 * PATIENCE
        while not self._accepts():
            if broker.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker does not answer: {self._log.read_text()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._end(self._processes.pop())

    def stop(self) -> None:
        while self._processes:
            self.kill()

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
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


@contextmanager
def rabbitmq() -> Iterator[RabbitMQ]:
    """
    :raises ServerMissing: if it is not installed
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
