"""``serve``: run Glance with the filter on this machine, to try it."""

import argparse
import ipaddress
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from related_images import config, validation
from related_images.db import schema
from related_images.errors import NotServed
from related_images.integrations import glance
from related_images.integrations.development_identity import ALLOW_REMOTE
from related_images.manage import database_access, options, serve_files

_BACKLOG = 128
_EPILOG = """\
Ctrl-C or SIGTERM stops the command; the next start uses the same data. There is no Keystone: every
token of the form user:project:role,role is accepted. So an address that other machines can reach
requires both --allow-remote and --believe-every-token. The options of Glance, and those of the
filter in [related_images], are in DIR/glance-api.conf.
Exit codes: 0 stopped, 1 failed (one line on stderr says why), 2 wrong usage, 3 Glance or the filter
cannot be loaded.
"""

_GREETING = """\
related-images: Glance is at {url}, its data is in {directory}.
The UUID of the installation (Nova deployment) is {installation}. Try:

1. Create an image of the server web-2, as Nova does for a user:

  curl -s {url}/v2/images -H 'Content-Type: application/json' \\
    -H 'X-Auth-Token: alice:demo:member' -H 'X-Service-Token: nova:service:service' \\
    -H 'X-Installation-UUID: {installation}' -H 'X-Instance-ID: web-2' \\
    -d '{{"name": "web-2 on Monday", "disk_format": "raw", "container_format": "bare"}}' -w '\\n'

2. List the images of that server:

  curl -s '{url}/v2/images?installation_uuid={installation}&instance_id=web-2' \\
    -H 'X-Auth-Token: alice:demo:member' -w '\\n'

3. List the relations of that server:

  curl -s '{url}/v2/relations?instance_id=web-2' -H 'X-Auth-Token: alice:demo:member' -w '\\n'
"""

_WITH_OPENSTACK = """
The same with the openstack command. The clouds are alice (a user), nova (a service, which may
record relations) and admin (an administrator):

  export PATH={programs}:$PATH
  export OS_CLIENT_CONFIG_FILE={clouds}
  export OS_CLOUD=alice
  openstack server image list web-2
  openstack image relation list --server web-2
"""


class Serve(options.OperatorCommand):
    """Run Glance with the filter on this machine, to try it, with all data in one directory.

    The first start writes the UUID of an installation to DIR/installation-uuid. Each start writes
    DIR/clouds.yaml for the openstack command and openstacksdk. Set OS_CLIENT_CONFIG_FILE to this
    file, and OS_CLOUD to a cloud in it: alice (a user), nova (a service, which may record
    relations) or admin (an administrator).
    """

    exit_codes = _EPILOG

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of ``serve``.

        :param parser: the parser of the command
        """
        add = parser.add_argument
        add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        add(
            "--port",
            type=validation.argument(validation.number, "--port", least=0, most=65535),
            default=9292,
            help="port to listen on, 0 for a free one (default: %(default)s)",
        )
        add(
            "--data-dir",
            type=Path,
            default=Path("data"),
            metavar="DIR",
            help="directory of all data (default: ./data)",
        )
        add(
            "--threads",
            type=validation.argument(validation.number, "--threads", most=256),
            default=8,
            help="threads of the server (default: %(default)s)",
        )
        add(
            "--allow-remote",
            action="store_true",
            help="allow a --host that other machines can reach",
        )
        add(
            "--believe-every-token",
            action="store_true",
            help="accept every token, also from other machines; required with --allow-remote",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        """Serve until Ctrl-C or SIGTERM.

        :param args: the parsed arguments
        :raises RelatedImagesError: if Glance, its directory or the address cannot be used
        """
        if args.allow_remote and args.believe_every_token:
            os.environ[ALLOW_REMOTE] = "1"
        else:
            _refuse_remote(args.host)
        directory = args.data_dir.absolute()
        with _listen(args.host, args.port) as listener:
            glance.claim(directory)
            glance.prepare(directory)
            _upgrade_schema()
            greeting = _greeting(_url(listener), directory)
            glance.serve(directory, listener, args.threads, greeting)


def _refuse_remote(host: str) -> None:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise _cannot_listen(host, error) from error
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise NotServed(
            f"other machines can reach {host}, and every token is accepted here; use 127.0.0.1, or "
            "give --allow-remote --believe-every-token"
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
    settings = config.load(config.GROUP, {config.OSLO_PROJECT: "glance"})
    with database_access.at(settings.connection) as url:
        schema.upgrade(url)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greeting(url: str, directory: Path) -> str:
    """Return the text with commands to try, and write the files for them into ``directory``."""
    programs = Path(sys.executable).parent
    has_openstack = shutil.which("openstack", path=str(programs)) is not None
    return (_GREETING + _WITH_OPENSTACK if has_openstack else _GREETING).format(
        url=url,
        directory=directory,
        installation=serve_files.installation(directory),
        clouds=shlex.quote(str(serve_files.write_clouds(directory, url))),
        programs=shlex.quote(str(programs)),
    )
