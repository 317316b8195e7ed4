"""The users, addresses and configuration files of the services of the test cloud."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tests.servers import PATIENCE

Sections = Mapping[str, Mapping[str, str]]

INSTALLATION: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
VOLUMES: Final = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
"""The installation of Cinder."""
SECOND: Final = "1c9d8e7f-5a3b-4c2d-8e1f-0a9b8c7d6e5f"
"""The installation of a second Nova."""
SECOND_NOVA: Final = "second"
"""The name of the second Nova, with which the names of its databases begin."""
REGION: Final = "RegionOne"
PASSWORD: Final = "secret"

SERVICES: Final = ("cinder", "glance", "nova", "placement")
"""Service users. Each has the role service in the project service."""

ROLES: Final = {"cinder": ("admin", "service")}
"""The roles of service users that need other roles than service."""

PEOPLE: Final = {"admin": "admin", "alice": "demo", "bob": "other", "carol": "backups"}
"""The project of each user. All but admin have the role member."""

TYPES: Final = {
    "cinder": "volumev3",
    "glance": "image",
    "nova": "compute",
    "placement": "placement",
    "neutron": "network",
}
"""The type of each service in the catalogue."""

HEARD, RECORDED = TOPICS = ("versioned_notifications", "related_images")
"""The topics of Nova's notifications: for the listener with its own database, and for the other."""

VOLUME_TOPICS: Final = {
    HEARD: "cinder_notifications",
    RECORDED: "related_images_volumes",
}
"""The topic under which Cinder sends to each listener, by that of Nova."""

RELATED, WITNESSED = ("related_images", "witnessed")
"""The database of the filter, and a database that has only what notifications report."""

LISTENERS: Final = {"witness": (WITNESSED, HEARD), "listener": (RELATED, RECORDED)}
"""The database and the topic of each ``related-images listen``."""

DATABASES: Final = (
    *("keystone", "placement", "glance", "cinder", RELATED, WITNESSED),
    *("nova", "nova_api", "nova_cell0", "nova_cell2"),
    *(f"{SECOND_NOVA}_{name}" for name in ("placement", "nova", "nova_api", "nova_cell0")),
)

POLICY: Final = {"compute:servers:resize:cross_cell": "rule:project_member_or_admin"}
"""Changes to Nova's default policy."""

_OURS: Final = """
[filter:related-images]
{options}
"""


@dataclass(frozen=True)
class Cell:
    """The names and addresses that belong to one cell of Nova.

    :param host: the host name of its nova-compute
    :param database: the name of its database
    :param bus: the URL of its message bus
    """

    host: str
    database: str
    bus: str

    @property
    def compute(self) -> str:
        return f"compute-{self.host}"

    @property
    def conductor(self) -> str:
        return f"conductor-{self.host}"


@dataclass(frozen=True)
class Plan:
    """The addresses and files of the cloud.

    :param database: the URL of the database server
    :param bus: the URL of the message bus, which is also that of the first cell
    :param urls: the URL of each service, by name
    :param installation: the installation of Nova
    :param prefix: the beginning of the names of the databases
    """

    directory: Path
    database: str
    bus: str
    urls: Mapping[str, str]
    installation: str = INSTALLATION
    prefix: str = ""

    def home(self, service: str) -> Path:
        return self.directory / service

    @property
    def clouds(self) -> Path:
        return self.directory / "clouds.yaml"

    @property
    def first(self) -> Cell:
        return Cell("cloud", "nova", self.bus)

    @property
    def identity(self) -> str:
        return f"{self.urls['keystone']}/v3"

    def port(self, service: str) -> int:
        return int(self.urls[service].rpartition(":")[2])

    def user(self, name: str) -> dict[str, str]:
        """Return the options with which keystoneauth authenticates a user or service user."""
        return {
            "auth_url": self.identity,
            "username": name,
            "password": PASSWORD,
            "project_name": PEOPLE.get(name, "service"),
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    def database_of(self, name: str) -> str:
        return f"{self.database}/{self.prefix}{name}"

    def dead_letters(self, listener: str) -> Path:
        return self.directory / f"{listener}.jsonl"

    def write(self) -> None:
        """Write the files of all services."""
        for service in ("keystone", "glance", "cinder"):
            self.home(service).mkdir()
        _write(self.home("keystone") / "keystone.conf", _keystone(self))
        self.write_glance(self.home("glance"))
        _write(self.home("cinder") / "cinder.conf", _cinder(self))
        _write_cinder_paste(self)
        self.write_nova()
        self.write_clouds(self.clouds)

    def write_nova(self) -> None:
        """Write the files of Nova and Placement."""
        for service in ("placement", "nova"):
            self.home(service).mkdir()
        _write(self.home("placement") / "placement.conf", _placement(self))
        _write(self.home("nova") / "nova.conf", _nova_above_cells(self))
        _policy(self).write_text(json.dumps(POLICY))
        _write_nova_paste(self)
        self.write_compute(self.first)

    def write_clouds(self, path: Path, **endpoints: str) -> None:
        """Write a clouds.yaml.

        :param endpoints: the endpoints that differ from the catalogue, by the type of the service
        """
        overrides = {f"{kind}_endpoint_override": url for kind, url in endpoints.items()}
        clouds = {name: {**one, **overrides} for name, one in _clouds(self).items()}
        path.write_text(json.dumps({"clouds": clouds}, indent=1))

    def write_compute(self, cell: Cell) -> None:
        self._write_nova(cell.compute, _compute(self, cell))

    def write_conductor(self, cell: Cell) -> None:
        """Write the configuration of a nova-conductor that knows only its own cell."""
        self._write_nova(cell.conductor, {**_nova(self, cell), **_cell_database(self, cell)})

    def _write_nova(self, home: str, sections: Sections) -> None:
        self.home(home).mkdir()
        _write(self.home(home) / "nova.conf", sections)

    def write_glance(
        self,
        home: Path,
        *,
        with_filter: bool = True,
        roles_required: str = "true",
        options: Mapping[str, str] = MappingProxyType({}),
        database: str = "glance",
    ) -> None:
        """Write the files of one process of Glance.

        :param roles_required: whether keystonemiddleware accepts a service token only if it has the
            role service
        :param options: options of the filter that differ from those of the cloud
        :param database: the name of Glance's database
        """
        paste = home / "glance-api-paste.ini"
        _write(home / "glance-api.conf", _glance(self, paste, roles_required, database))
        _write_glance_paste(self, paste, with_filter, options)


def _keystone(plan: Plan) -> Sections:
    keys = plan.home("keystone")
    return {
        "database": {"connection": plan.database_of("keystone")},
        "fernet_tokens": {"key_repository": f"{keys}/tokens"},
        # the lowest number that Keystone accepts, which is the fastest
        "identity": {"password_hash_rounds": "4"},
    }


def _placement(plan: Plan) -> Sections:
    return {
        "placement_database": {"connection": plan.database_of("placement")},
        "keystone_authtoken": _authtoken(plan, "placement"),
    }


def _glance(plan: Plan, paste: Path, roles_required: str, database: str) -> Sections:
    service_tokens = {
        "service_token_roles": "service",
        "service_token_roles_required": roles_required,
    }
    data = plan.home("glance")
    return {
        "DEFAULT": {"enabled_backends": "local:file"},
        "database": {"connection": plan.database_of(database)},
        "glance_store": {"default_backend": "local"},
        "local": {"filesystem_store_datadir": f"{data}/images"},
        "os_glance_staging_store": {"filesystem_store_datadir": f"{data}/staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": f"{data}/tasks"},
        "paste_deploy": {"flavor": "keystone", "config_file": str(paste)},
        "keystone_authtoken": {**_authtoken(plan, "glance"), **service_tokens},
    }


def _installed(service: str, name: str) -> Path:
    """Return a file that the package of a service installs."""
    return Path(sys.prefix) / "etc" / service / name


def _cinder(plan: Plan) -> Sections:
    """Return the options of all processes of Cinder."""
    home = plan.home("cinder")
    service = {"auth_type": "password", "region_name": REGION, **plan.user("cinder")}
    return {
        "DEFAULT": {
            "transport_url": plan.bus,
            "my_ip": "127.0.0.1",
            "host": "cloud",
            "state_path": str(home),
            "auth_strategy": "keystone",
            "enabled_backends": "files",
            "glance_api_servers": plan.urls["glance"],
            "api_paste_config": str(home / "api-paste.ini"),
            "resource_query_filters_file": str(_installed("cinder", "resource_filters.json")),
            "use_default_quota_class": "false",
            "quota_volumes": "-1",
            "quota_gigabytes": "-1",
            "quota_snapshots": "-1",
            # the scheduler may miss the first report of the back end
            "backend_stats_polling_interval": "3",
            # a slow process is not down
            "service_down_time": "600",
        },
        "files": {
            "volume_driver": "tests.cloud.volumes.FileDriver",
            "volume_backend_name": "files",
        },
        "database": {"connection": plan.database_of("cinder")},
        "oslo_concurrency": {"lock_path": f"{home}/locks"},
        "keystone_authtoken": _authtoken(plan, "cinder"),
        "service_user": {"send_service_user_token": "true", **service},
        "nova": service,
        "oslo_messaging_notifications": {
            "driver": "messagingv2",
            "transport_url": plan.bus,
            "topics": ",".join(VOLUME_TOPICS.values()),
        },
    }


def glance_paste(plan: Plan) -> Path:
    return plan.home("glance") / "glance-api-paste.ini"


def _write_glance_paste(
    plan: Plan, path: Path, with_filter: bool, others: Mapping[str, str]
) -> None:
    """Write Glance's paste file, with the filter at the place that docs/deploy.md names."""
    text = (Path(sys.prefix) / "etc" / "glance" / path.name).read_text()
    options = {
        "use": "egg:related-images#instance_aware",
        "connection": plan.database_of(RELATED),
        "require_registered_installation": "true",
        "nova_rotation": "verified",
        "guard": "in-use",
        # a slow machine must not change the results
        "database_timeout": str(PATIENCE),
        **others,
    }
    if with_filter:
        _write_paste(path, text, "authtoken context rootapp", options)
    else:
        path.write_text(text)


def _write_nova_paste(plan: Plan) -> None:
    """Write Nova's paste file, with the filter at the place that docs/nova.md names."""
    text = (Path(sys.prefix) / "etc" / "nova" / "api-paste.ini").read_text()
    options = {
        "paste.filter_factory": "related_images.integrations.nova:filter_factory",
        "installation_uuid": plan.installation,
        "volume_installation_uuid": VOLUMES,
    }
    _write_paste(plan.home("nova") / "api-paste.ini", text, "osapi_compute_app_v21", options)


def _write_cinder_paste(plan: Plan) -> None:
    """Cinder's own paste file, with the filter where docs/volumes.md puts it."""
    text = _installed("cinder", "api-paste.ini").read_text()
    options = {
        "paste.filter_factory": "related_images.integrations.cinder:filter_factory",
        "installation_uuid": VOLUMES,
    }
    _write_paste(plan.home("cinder") / "api-paste.ini", text, "keystonecontext apiv3", options)


def _write_paste(path: Path, text: str, words: str, options: Mapping[str, str]) -> None:
    """Write a paste file with the filter in each pipeline that contains ``words``.

    :param words: names that follow each other in a pipeline; the filter is put before the last one
    """
    *others, last = words.split()
    found, wanted = " ".join(["", *others, last]), " ".join(["", *others, "related-images", last])
    assert found in text, f"{path.name} of this version has no pipeline with {words}"
    section = "\n".join(f"{name} = {value}" for name, value in options.items())
    path.write_text(text.replace(found, wanted) + _OURS.format(options=section))


def _nova(plan: Plan, cell: Cell) -> dict[str, Mapping[str, str]]:
    """Return the options that all processes of Nova have."""
    home = plan.home("nova")
    speaks = {"auth_type": "password", "region_name": REGION, **plan.user("nova")}
    return {
        "DEFAULT": {
            "transport_url": cell.bus,
            "concurrency_backend": "threading",
            "host": cell.host,
            "my_ip": "127.0.0.1",
            "state_path": str(home),
            # on a slow machine, Nova must not consider a service to be down
            "service_down_time": "600",
        },
        "oslo_concurrency": {"lock_path": f"{home}/locks"},
        "keystone_authtoken": _authtoken(plan, "nova"),
        "service_user": {"send_service_user_token": "true", **speaks},
        "placement": {**speaks, "endpoint_override": plan.urls["placement"]},
        "neutron": speaks,
        "glance": {"region_name": REGION},
        "cinder": {**speaks, "os_region_name": REGION, "catalog_info": "volumev3::publicURL"},
        "vnc": {"enabled": "false"},
        "conductor": {"workers": "1"},
        "scheduler": {"workers": "1"},
        "quota": dict.fromkeys(("instances", "cores", "ram"), "-1"),
        "notifications": {
            "notification_format": "versioned",
            "versioned_notifications_topics": ",".join(TOPICS),
            "bdms_in_notifications": "true",
        },
        # the notifications of all cells go to the bus that the listeners read
        "oslo_messaging_notifications": {"driver": "messagingv2", "transport_url": plan.bus},
    }


def _nova_above_cells(plan: Plan) -> Sections:
    """Return the options of nova-api, nova-scheduler and the conductor.

    The conductor is both the super conductor and that of the first cell.
    """
    return {
        **_nova(plan, plan.first),
        **_cell_database(plan, plan.first),
        "api_database": {"connection": plan.database_of("nova_api")},
        "oslo_policy": {"policy_file": str(_policy(plan))},
    }


def _cell_database(plan: Plan, cell: Cell) -> Sections:
    return {"database": {"connection": plan.database_of(cell.database)}}


def _policy(plan: Plan) -> Path:
    return plan.home("nova") / "policy.yaml"


def _compute(plan: Plan, cell: Cell) -> Sections:
    """Return the options of nova-compute, which must not have the URL of a database."""
    common = _nova(plan, cell)
    state = str(plan.home(cell.compute))
    driver = {"compute_driver": "fake.UploadingDriver", "state_path": state}
    return {**common, "DEFAULT": {**common["DEFAULT"], **driver}}


def _authtoken(plan: Plan, service: str) -> dict[str, str]:
    return {
        "www_authenticate_uri": plan.identity,
        "auth_type": "password",
        "region_name": REGION,
        **plan.user(service),
    }


def _clouds(plan: Plan) -> dict[str, Any]:
    common = {
        "region_name": REGION,
        "identity_api_version": "3",
        "compute_api_version": "2.74",
    }
    return {name: {**common, "auth": plan.user(name)} for name in (*PEOPLE, *SERVICES)}


def _write(path: Path, sections: Sections) -> None:
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    path.write_text("\n".join(lines))
