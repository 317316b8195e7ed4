"""Start a small cloud of real services on loopback, and end all its processes.

The services are MariaDB, RabbitMQ, Keystone, Placement, Glance and Nova. Glance and Nova have the
filters at the places that docs/deploy.md and docs/nova.md name. Two parts are replaced: the network
service has no networks, and the compute driver runs no servers.
"""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from getpass import getuser
from grp import getgrgid
from pathlib import Path
from typing import Any, Final

from tests.cloud.cloud import BIN, Cloud, eventually
from tests.cloud.network import network
from tests.cloud.plan import (
    DATABASES,
    LISTENERS,
    PASSWORD,
    PEOPLE,
    REGION,
    ROLES,
    SERVICES,
    TYPES,
    VOLUME_TOPICS,
    VOLUMES,
    WITNESSED,
    Cell,
    Plan,
    glance_paste,
)
from tests.cloud.processes import Processes
from tests.rabbitmq import rabbitmq
from tests.servers import ask, mariadb

APPLICATIONS: Final = {
    "keystone": ("keystone.wsgi.api", "OS_KEYSTONE_CONFIG_DIR"),
    "placement": ("placement.wsgi.api", "OS_PLACEMENT_CONFIG_DIR"),
    "glance": ("glance.wsgi.api", "OS_GLANCE_CONFIG_DIR"),
    "cinder": ("tests.cloud.cinder_api", "CINDER_CONFIG_FILE"),
    "nova": ("nova.wsgi.osapi_compute", "OS_NOVA_CONFIG_DIR"),
}
"""The WSGI application of each service, and the environment variable with its directory."""

PATHS: Final = {"nova": "/v2.1", "cinder": "/v3"}
"""The path of the API in the URL of an endpoint."""

INTERFACES: Final = ("public", "internal")

SCHEDULER: Final = "nova-scheduler"

ROOT: Final = Path(__file__).parents[2]


@contextmanager
def cloud(directory: Path) -> Iterator[Cloud]:
    """Start a cloud, yield it, and end it.

    :param directory: the directory of all its files
    :raises ServerMissing: if MariaDB or RabbitMQ is not installed
    """
    with ExitStack() as stack:
        databases, bus = at_once(
            lambda: stack.enter_context(mariadb()), lambda: stack.enter_context(rabbitmq())
        )
        for name in DATABASES:
            databases.run(f"CREATE DATABASE {name}")
        listeners = {name: stack.enter_context(new_listener()) for name in APPLICATIONS}
        urls = {name: url_of(one) for name, one in listeners.items()}
        urls["neutron"] = stack.enter_context(network())
        plan = Plan(directory, databases.url, bus.url, urls)
        plan.write()
        processes = Processes(directory)
        stack.callback(processes.stop_all)
        started = Cloud(plan, processes, bus)
        _start(started, listeners)
        yield started


def new_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{port_of(listener)}"


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """Call functions in threads of their own, and return their results."""
    with ThreadPoolExecutor() as pool:
        return [done.result() for done in [pool.submit(task) for task in tasks]]


def _start(cloud: Cloud, listeners: Mapping[str, socket.socket]) -> None:
    """Start all services, Nova after Keystone: Nova fails if Keystone does not know its user."""

    def serve_keystone() -> None:
        serve(cloud, "keystone", _keystone, listeners)
        _populate(cloud)

    at_once(
        serve_keystone,
        partial(serve, cloud, "placement", prepare_placement, listeners),
        partial(serve, cloud, "glance", _glance, listeners),
        partial(prepare_nova, cloud),
        partial(_cinder, cloud),
    )
    at_once(
        partial(serve, cloud, "nova", run_nova, listeners),
        partial(serve, cloud, "cinder", _run_cinder, listeners),
        partial(start_compute, cloud, cloud.plan.first),
        partial(_relate, cloud),
    )
    # a request that is sent before the scheduler listens is lost
    wait_for_scheduler(cloud)
    _wait_for_back_end(cloud)


def serve(
    cloud: Cloud,
    name: str,
    prepare: Callable[[Cloud], None],
    listeners: Mapping[str, socket.socket],
) -> None:
    """Prepare a service, start its WSGI application, and wait until it responds."""
    prepare(cloud)
    _serve(cloud, name, name, listeners[name])
    _answers(cloud, name, cloud.plan.port(name))


def _keystone(cloud: Cloud) -> None:
    files = ("--config-file", str(cloud.plan.home("keystone") / "keystone.conf"))
    ours = ("--keystone-user", getuser(), "--keystone-group", getgrgid(os.getgid()).gr_name)
    for words in (("db_sync",), ("fernet_setup", *ours), _bootstrap(cloud.plan)):
        _manage(cloud, "keystone-manage", *files, *words)


def _bootstrap(plan: Plan) -> tuple[str, ...]:
    urls = [f"--bootstrap-{interface}-url={plan.identity}" for interface in INTERFACES]
    return (
        "bootstrap",
        f"--bootstrap-password={PASSWORD}",
        f"--bootstrap-region-id={REGION}",
        *urls,
    )


def prepare_placement(cloud: Cloud) -> None:
    home = str(cloud.plan.home("placement"))
    _manage(cloud, "placement-manage", "--config-dir", home, "db", "sync")


def _glance(cloud: Cloud) -> None:
    home = cloud.plan.home("glance")
    for store in ("images", "staging", "tasks"):
        (home / store).mkdir()
    _manage(cloud, "glance-manage", "--config-file", str(home / "glance-api.conf"), "db_sync")
    for where in (
        ("--paste", str(glance_paste(cloud.plan))),
        ("--connection", cloud.plan.database_of(WITNESSED)),
    ):
        _manage(cloud, "related-images", "db", "upgrade", *where)


def prepare_nova(cloud: Cloud) -> None:
    for words in (
        ("api_db", "sync"),
        ("cell_v2", "map_cell0"),
        ("db", "sync"),
        ("cell_v2", "create_cell", "--name", "cell1"),
    ):
        manage_nova(cloud, "nova", *words)


def run_nova(cloud: Cloud) -> None:
    speaking = ("--installation-uuid", cloud.plan.installation)
    start_nova(cloud, "related-images-nova-conductor", "nova", *speaking)
    start_scheduler(cloud)


def _cinder(cloud: Cloud) -> None:
    (cloud.plan.home("cinder") / "volumes").mkdir()
    _manage(cloud, "cinder-manage", *_cinder_files(cloud), "db", "sync")


def _run_cinder(cloud: Cloud) -> None:
    for name in ("cinder-scheduler", "cinder-volume"):
        command = (str(BIN / name), *_cinder_files(cloud))
        cloud.processes.start(name, *command, PYTHONPATH=str(ROOT))


def _wait_for_back_end(cloud: Cloud) -> None:
    """Wait until cinder-scheduler knows the back end: before, it refuses to create volumes."""
    storage = cloud.connect("admin").block_storage
    eventually(lambda: [*storage.backend_pools()], "the back end of Cinder")


def _cinder_files(cloud: Cloud) -> tuple[str, str]:
    return "--config-file", str(cloud.plan.home("cinder") / "cinder.conf")


def start_scheduler(cloud: Cloud) -> None:
    start_nova(cloud, SCHEDULER, "nova")


def wait_for_scheduler(cloud: Cloud) -> None:
    def listens() -> bool:
        cloud.processes.check()
        return cloud.consumers("scheduler") > 0

    eventually(listens, SCHEDULER)


def start_nova(cloud: Cloud, name: str, home: str, *words: str) -> None:
    """Start a program of Nova with the configuration in the directory ``home``."""
    cloud.processes.start(name, str(BIN / name), *_nova_files(cloud, home), *words)


def manage_nova(cloud: Cloud, home: str, *words: str) -> None:
    _manage(cloud, "nova-manage", *_nova_files(cloud, home), *words)


def _nova_files(cloud: Cloud, home: str) -> tuple[str, str]:
    return "--config-file", str(cloud.plan.home(home) / "nova.conf")


def _manage(cloud: Cloud, name: str, *words: str) -> None:
    cloud.processes.run(name, str(BIN / name), *words)


@contextmanager
def glance_beside(cloud: Cloud, name: str, **others: Any) -> Iterator[int]:
    """Run another process of the same Glance with other options, and yield its port.

    :param others: those of :meth:`Plan.write_glance`
    """
    home = cloud.plan.home(name)
    home.mkdir(exist_ok=True)
    cloud.plan.write_glance(home, **others)
    with _beside(cloud, name, "glance") as port:
        yield port


@contextmanager
def nova_without_service_user(cloud: Cloud) -> Iterator[int]:
    """Run another nova-api with send_service_user_token = false, and yield its port."""
    name = "nova-without-service-user"
    home = shutil.copytree(cloud.plan.home("nova"), cloud.plan.home(name))
    conf = home / "nova.conf"
    told = "send_service_user_token = {}".format
    assert told("true") in conf.read_text()
    conf.write_text(conf.read_text().replace(told("true"), told("false")))
    with _beside(cloud, name, "nova") as port:
        yield port


@contextmanager
def compute_told(cloud: Cloud) -> Iterator[Callable[[Mapping[str, str]], None]]:
    """Yield a function that restarts nova-compute of the first cell with changed options.

    The argument of the function maps lines of the original nova.conf to the lines that replace
    them. At the end, nova-compute runs with the original file again.
    """
    cell = cloud.plan.first
    conf = cloud.plan.home(cell.compute) / "nova.conf"
    before = conf.read_text()

    def tell(changes: Mapping[str, str]) -> None:
        changed = before
        for line, new in changes.items():
            assert line in changed
            changed = changed.replace(line, new)
        conf.write_text(changed)
        _restart_compute(cloud, cell)

    try:
        yield tell
    finally:
        tell({})


def _restart_compute(cloud: Cloud, cell: Cell) -> None:
    queue = f"compute.{cell.host}"
    cloud.processes.stop(cell.compute)
    eventually(lambda: cloud.consumers(queue) == 0, f"the end of {cell.compute}")
    start_compute(cloud, cell)
    eventually(lambda: cloud.consumers(queue) > 0, cell.compute)


@contextmanager
def _beside(cloud: Cloud, name: str, application: str) -> Iterator[int]:
    listener = new_listener()
    port = port_of(listener)
    _serve(cloud, name, application, listener)
    try:
        _answers(cloud, name, port)
        yield port
    finally:
        cloud.processes.stop(name)


def _serve(cloud: Cloud, name: str, application: str, listener: socket.socket) -> None:
    """Start a WSGI application with the configuration in the directory of ``name``."""
    module, variable = APPLICATIONS[application]
    home, descriptor = cloud.plan.home(name), listener.fileno()
    program = (sys.executable, "-m", "tests.cloud.web")
    command = (*program, module, str(descriptor), f"{home}/server.log")
    told = {variable: str(home), "PYTHONPATH": str(ROOT)}
    with listener:
        cloud.processes.start(name, *command, inherited=(descriptor,), **told)


def _answers(cloud: Cloud, name: str, port: int) -> None:
    """Wait until a service responds."""

    def answered() -> bool:
        cloud.processes.check()
        try:
            return ask(port, "GET", "/").status < 500
        except OSError:
            return False

    eventually(answered, name)


def _populate(cloud: Cloud) -> None:
    """Create the users, projects and endpoints that ``keystone-manage bootstrap`` leaves out."""
    identity = cloud.connect("admin").identity
    projects = {
        name: identity.create_project(name=name)
        for name in {"service", *PEOPLE.values()} - {"admin"}
    }
    for name in (*SERVICES, *PEOPLE):
        if name != "admin":
            user = identity.create_user(name=name, password=PASSWORD)
            project = projects[PEOPLE.get(name, "service")]
            for role in ROLES.get(name, ("service",) if name in SERVICES else ("member",)):
                identity.assign_project_role_to_user(project, user, identity.find_role(role))
    for name, kind in TYPES.items():
        service = identity.create_service(name=name, type=kind)
        url = cloud.plan.urls[name] + PATHS.get(name, "")
        for interface in INTERFACES:
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=url, region_id=REGION
            )


def _relate(cloud: Cloud) -> None:
    """Bind each installation to one service user, and listen to Nova and Cinder."""
    bind(cloud, "cinder", VOLUMES, "cinder")
    bind(cloud, "nova", cloud.plan.installation, "nova")
    listen(cloud, cloud)


def bind(cloud: Cloud, name: str, uuid: str, service_user: str) -> None:
    """Register an installation, and bind it to one service user."""
    user = cloud.connect("admin").identity.find_user(service_user)
    added = ("add", uuid, "--name", name, "--service-user", user.id)
    paste = ("--paste", str(glance_paste(cloud.plan)))
    _manage(cloud, "related-images", "installation", *added, *paste)


def listen(cloud: Cloud, shared: Cloud) -> None:
    """Start the listeners to a Nova and to Cinder.

    :param cloud: the cloud of the Nova
    :param shared: the cloud of the databases and of Cinder
    """
    for name, (database, topic) in LISTENERS.items():
        command = [
            *(str(BIN / "related-images"), "listen"),
            *("--connection", shared.plan.database_of(database)),
            *("--transport-url", cloud.plan.bus, "--topic", topic),
            *("--installation", cloud.plan.installation),
            *("--cinder-transport-url", shared.plan.bus, "--cinder-topic", VOLUME_TOPICS[topic]),
            *("--cinder-installation", VOLUMES),
            *("--dead-letters", str(cloud.plan.dead_letters(name))),
        ]
        cloud.processes.start(name, *command)


def start_compute(cloud: Cloud, cell: Cell) -> None:
    """Start nova-compute of a cell, and wait until Nova can schedule servers to it."""
    command = [sys.executable, "-m", "tests.cloud.compute", *_nova_files(cloud, cell.compute)]
    cloud.processes.start(cell.compute, *command, PYTHONPATH=str(ROOT))
    placement = cloud.connect("admin").placement

    def reported() -> bool:
        cloud.processes.check()
        found = list(placement.resource_providers(name=cell.host))
        return any(list(placement.resource_provider_inventories(one)) for one in found)

    eventually(reported, cell.compute)
    manage_nova(cloud, "nova", "cell_v2", "discover_hosts")
