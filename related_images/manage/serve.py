"""``related-images serve``: the real Glance with the filter, on this machine."""

import argparse
import ipaddress
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from related_images import config
from related_images.db import schema
from related_images.errors import NotServed
from related_images.integrations import glance
from related_images.integrations.development_identity import ALLOW_REMOTE
from related_images.manage import database_access, options, serve_files

_BACKLOG = 128
_EPILOG = """\
Ctrl-C or SIGTERM ends it; the next start finds the data again. In Keystone's place stands a filter
that believes every token of the form user:project:role,role, so an address that other machines may
reach is refused unless both --allow-remote and --believe-every-token are given. Glance's options,
and in [related_images] those of the filter, are in DIR/glance-api.conf.
Exit codes: 0 ended, 1 cannot serve here, 2 wrong usage, 3 Glance or the filter does not load.
"""

_GREETING = """\
related-images: Glance is at {url} and keeps its data in {directory}.
The installation, which stands for one Nova, is {installation}. Try:

1. Create an image of the server web-2, as Nova does for a user:

  curl -s {url}/v2/images -H 'Content-Type: application/json' \\
    -H 'X-Auth-Token: alice:demo:member' -H 'X-Service-Token: nova:service:service' \\
    -H 'X-Installation-UUID: {installation}' -H 'X-Instance-ID: web-2' \\
    -d '{{"name": "web-2 on Monday", "disk_format": "raw", "container_format": "bare"}}' -w '\\n'

2. List the images of that server:

  curl -s '{url}/v2/images?installation_uuid={installation}&instance_id=web-2' \\
    -H 'X-Auth-Token: alice:demo:member' -w '\\n'

3. See the relation:

  curl -s '{url}/v2/relations?instance_id=web-2' -H 'X-Auth-Token: alice:demo:member' -w '\\n'
"""

_WITH_OPENSTACK = """
The same with the openstack command. Its clouds are alice (a user), nova (a service, which may
record relations) and admin (an administrator):

  export PATH={programs}:$PATH
  export OS_CLIENT_CONFIG_FILE={clouds}
  export OS_CLOUD=alice
  openstack server image list web-2
  openstack image relation list --server web-2
"""


class Serve(options.Operation):
    """Serve a real Glance that records the images of servers, with its data in one directory.

    The first start makes the UUID of an installation and keeps it in DIR/installation-uuid. Each
    start writes DIR/clouds.yaml, for the openstack command and openstacksdk. Name that file in
    OS_CLIENT_CONFIG_FILE, and in OS_CLOUD one of its clouds: alice (a user), nova (a service, which
    may record relations) or admin (an administrator).
    """

    exit_codes = _EPILOG

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        add("--port", type=port, default=9292, help="default: %(default)s; 0 takes a free one")
        add("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: ./data")
        add("--threads", type=threads, default=8, help="default: %(default)s")
        add("--allow-remote", action="store_true", help="listen where other machines may reach it")
        add("--believe-every-token", action="store_true", help="needed with --allow-remote")

    def take_action(self, given: argparse.Namespace) -> None:
        if given.allow_remote and given.believe_every_token:
            os.environ[ALLOW_REMOTE] = "1"
        else:
            _refuse_remote(given.host)
        directory = given.data_dir.absolute()
        with _listen(given.host, given.port) as listener:
            glance.claim(directory)
            glance.prepare(directory)
            _upgrade_schema()
            greeting = _greeting(_url(listener), directory)
            glance.serve(directory, listener, given.threads, greeting)


def port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port: 0 to 65535 are")
    return port


def threads(text: str) -> int:
    threads = int(text)
    if not 1 <= threads <= 256:
        raise argparse.ArgumentTypeError(f"{threads} is not a number of threads from 1 to 256")
    return threads


def _refuse_remote(host: str) -> None:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise _cannot_listen(host, error) from error
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise NotServed(
            f"{host} can be reached from other machines, and every token is believed here; use "
            "127.0.0.1, or say --allow-remote --believe-every-token"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _cannot_listen(f"{host} port {port}", error) from error
    return listener


def _cannot_listen(where: str, error: OSError) -> NotServed:
    return NotServed(f"cannot listen on {where}: {error.strerror}; choose another --host or --port")


def _upgrade_schema() -> None:
    chosen = config.load(config.GROUP, {config.OSLO_PROJECT: "glance"})
    with database_access.at(chosen.connection) as url:
        schema.upgrade(url)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greeting(url: str, directory: Path) -> str:
    """What to try; the files that this needs are written into ``directory``."""
    programs = Path(sys.executable).parent
    has_openstack = shutil.which("openstack", path=str(programs)) is not None
    return (_GREETING + _WITH_OPENSTACK if has_openstack else _GREETING).format(
        url=url,
        directory=directory,
        installation=serve_files.installation(directory),
        clouds=shlex.quote(str(serve_files.write_clouds(directory, url))),
        programs=shlex.quote(str(programs)),
    )
