"""A real Nova in one process: API, conductor, scheduler and compute, started by Nova's fixtures.

Run as ``python -m tests.nova.lab PLAN OUTCOME``, two JSON files. It is a separate process because
Nova and Glance share one global configuration. The plan has the URLs of these Glances:

- ``filtered``: each kind of image that Nova creates
- ``passing`` and ``verified``: three backups with a rotation of three, and then a fourth
- ``unaccompanied``: like ``verified``, but the compute sends no service token
- ``plain``: a Glance without the filter
- ``down``: a Glance whose filter has no database
- ``refusing``: a fake Glance that refuses each image with the status in its name, and each start as
  the name of its image says

The outcome has the server of each image, and Nova's notifications.
"""

# ruff: noqa: I001, F401
import nova.tests.functional  # chooses between threads and greenlets, before anything else

import io
import json
import logging
import sys
import time
import traceback

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import fixtures
import requests
import testtools
from keystoneauth1 import loading
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from nova import objects
from nova.compute.manager import ComputeManager
from nova.conductor.tasks import cross_cell_migrate
from nova.conf import CONF
from nova.context import get_admin_context
from nova.image import glance as nova_glance
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import integrated_helpers
from nova.virt import fake
from nova.volume import cinder

from openstack.connection import Connection
from openstackclient import shell
from osc_lib.exceptions import CommandError

from related_images.integrations import reporting
from related_images.osc import image_deletion
from related_images.osc.compute import Compute as ComputeOfCloud
from related_images.osc.nova_metadata import ServerScope, stored_policies
from related_images.protocol import paths
from related_images.client.backups.stored_policy import METADATA_KEY, write
from related_images.manage.nova_servers import Compute
from tests.nova.driver import UNACCEPTABLE, UploadingDriver

PLAN, OUTCOME = (Path(path) for path in sys.argv[1:3])

INSTALLATION: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
CINDER: Final = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
USER: Final = "alice:demo:member"
ADMIN: Final = "root:administration:admin"
STRANGER: Final = "eve:other:member"
ODD_NAME: Final = "web (1)|^x.* Größe"
NOVA: Final = "nova:service:service"
PATIENCE: Final = 60
"""Seconds to wait for any action of Nova."""

_FILTERS: Final = """
[filter:development-identity]
use = egg:related-images#development_identity

[filter:related-images]
paste.filter_factory = related_images.integrations.nova:filter_factory
installation_uuid = {installation}
volume_installation_uuid = {volumes}
"""


def _paste_file(directory: Path) -> Path:
    """Write Nova's paste file with two more filters, one of which replaces authtoken."""
    text = (Path(sys.prefix) / "etc" / "nova" / "api-paste.ini").read_text()
    text = text.replace(" authtoken ", " development-identity ")
    text = text.replace(" osapi_compute_app_v21", " related-images osapi_compute_app_v21")
    path = directory / "api-paste.ini"
    path.write_text(text + _FILTERS.format(installation=INSTALLATION, volumes=CINDER))
    return path


class Glance:
    """A client of one Glance."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, token: str = USER, **options: Any) -> Any:
        headers = {"X-Auth-Token": token, **options.pop("headers", {})}
        response = requests.request(
            method, f"{self.url}/v2{path}", headers=headers, timeout=60, **options
        )
        response.raise_for_status()
        return response

    def image(self, token: str = USER, *, active: bool = True, **properties: Any) -> str:
        body = {"disk_format": "raw", "container_format": "bare", **properties}
        image_id: str = self.call("POST", "/images", token, json=body).json()["id"]
        if active:
            octets = {"Content-Type": "application/octet-stream"}
            self.call("PUT", f"/images/{image_id}/file", token, data=b"a disk", headers=octets)
        return image_id

    def backups(self) -> list[str]:
        """Return the names of the images with ``image_type=backup``, oldest first."""
        query = "/images?image_type=backup&sort_key=created_at&sort_dir=asc"
        return [image["name"] for image in self.call("GET", query, ADMIN).json()["images"]]


class Lab(integrated_helpers._IntegratedTestBase):  # type: ignore[misc]
    """One Nova with one test, which runs all actions."""

    STUB_KEYSTONE = False
    NUMBER_OF_CELLS = 1

    def setUp(self) -> None:
        self.addOnException(lambda error: traceback.print_exception(*error, file=sys.__stderr__))
        nova_fixtures.GlanceFixture = lambda test: fixtures.Fixture()
        nova_fixtures.WarningsFixture = fixtures.Fixture
        directory = Path(self.useFixture(fixtures.TempDir()).path)
        self._plan: dict[str, str] = json.loads(PLAN.read_text())
        self._outcome: dict[str, Any] = {"images": {}, "failures": {}, "rotation": {}}
        self._paste = _paste_file(directory)
        super().setUp()
        # how busy the machine is decides nothing
        self.stub_out("related_images.integrations.reporting.SECONDS", PATIENCE)
        self._warnings = self.useFixture(fixtures.FakeLogger("related_images", logging.WARNING))

    def _setup_services(self) -> None:
        CONF.register_opts(loading.get_auth_plugin_conf_options("admin_token"), "service_user")
        self.flags(api_paste_config=str(self._paste), group="wsgi")
        self.flags(
            send_service_user_token=True,
            auth_type="admin_token",
            token=NOVA,
            endpoint="http://127.0.0.1",
            group="service_user",
        )
        self.flags(num_retries=0, group="glance")
        self.flags(instances=-1, cores=-1, ram=-1, group="quota")
        # Nova loads drivers only from its own package
        fake.UploadingDriver = UploadingDriver
        self.flags(compute_driver="fake.UploadingDriver")
        self._describe_volumes()
        self._sign_fake_volumes()
        super()._setup_services()

    def _describe_volumes(self) -> None:
        """Add the description to volumes of Nova's fake Cinder, which snapshots need."""
        get = cinder.API.get
        described = lambda _, *args, **kwargs: {  # noqa: E731
            "display_description": "",
            **get(*args, **kwargs),
        }
        self.stub_out("nova.volume.cinder.API.get", described)

    def _sign_fake_volumes(self) -> None:
        """Give functions of Nova's fake Cinder the arguments of the real ones."""
        create, get = cinder.API.create_snapshot_force, cinder.API.get_snapshot
        taken = self._taken = list[str]()

        def create_snapshot_force(
            self: Any, ctx: Any, res_id: str, *args: Any, **kwargs: Any
        ) -> Any:
            taken.append(res_id)
            return create(ctx, res_id, *args, **kwargs)

        def get_snapshot(self: Any, ctx: Any, snapshot_id: str, *args: Any, **kwargs: Any) -> Any:
            return get(ctx, snapshot_id)

        for function in (create_snapshot_force, get_snapshot):
            self.stub_out(f"nova.volume.cinder.API.{function.__name__}", function)

    @contextmanager
    def _with(self, name: str) -> Iterator[Glance]:
        """Make Nova use one Glance, and yield a client of it."""
        url = self._plan[name]
        self.flags(api_servers=[url], group="glance")
        yield Glance(url)

    def _nova(self, path: str, body: Any, token: str = USER) -> Any:
        response = requests.request(
            "POST",
            f"{self.api_fixture.base_url}{path}",
            headers={"X-Auth-Token": token, "OpenStack-API-Version": "compute 2.74"},
            json=body,
            timeout=60,
        )
        if not response.ok:
            raise requests.HTTPError(response.text, response=response)
        return response.json() if response.content else None

    def _server(self, name: str, token: str = USER, **boot: Any) -> str:
        server = {"name": name, "flavorRef": "1", "networks": "none", **boot}
        server_id: str = self._nova("/servers", {"server": server}, token)["server"]["id"]
        assert self._settled(server_id) == "active"
        return server_id

    def _settled(self, server_id: str) -> str:
        """Wait until Nova has finished its task, and return the state of the server."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = objects.Instance.get_by_uuid(get_admin_context(), server_id)
            if found.task_state is None and found.vm_state != "building":
                return str(found.vm_state)
            time.sleep(0.05)
        raise AssertionError(f"the server is {found.vm_state}, {found.task_state}")

    def _act(self, server_id: str, token: str = USER, **action: Any) -> Any:
        answer = self._nova(f"/servers/{server_id}/action", action, token)
        self._settled(server_id)
        return answer

    def _snapshot(self, server_id: str, token: str = USER, **metadata: str) -> str:
        wanted = {"name": "snapshot", "metadata": metadata}
        image_id: str = self._act(server_id, token, createImage=wanted)["image_id"]
        return image_id

    def _backup(self, server_id: str, name: str, rotation: int) -> str:
        wanted = {"name": name, "backup_type": "daily", "rotation": rotation}
        image_id: str = self._act(server_id, createBackup=wanted)["image_id"]
        return image_id

    def test_all(self) -> None:
        self._make_each_kind()
        for name in ("passing", "verified"):
            self._outcome["rotation"][name] = self._rotate(name)
        self._send_no_service_token_in_rotations()
        self._outcome["rotation"]["unaccompanied"] = self._rotate("unaccompanied")
        self._outcome["projects"] = self._ask_nova()
        self._outcome["policies"] = self._carry()
        self._outcome["deletions"] = self._judge_deletions()
        self._outcome["names"] = self._find_by_name()
        self._outcome["plain"] = self._without_filter()
        self._outcome["down"] = self._without_database()
        self._outcome["starts"] = self._start_each_way()
        self._outcome["refused starts"] = self._refuse_starts()
        self._outcome["refused"] = self._refused()
        self._outcome["shown"] = self._shown()
        self._outcome["notifications"] = [
            {"event_type": sent["event_type"], "payload": sent["payload"]}
            for sent in self.notifier.versioned_notifications
        ]
        OUTCOME.write_text(json.dumps(self._outcome, indent=1))

    def _make_each_kind(self) -> None:
        with self._with("filtered") as glance:
            base = glance.image(ADMIN, visibility="public", name="base")
            first = self._server("first", imageRef=base)
            self._note("snapshot", first, self._snapshot(first))
            backup = self._backup(first, "backup", 5)
            self._note("backup", first, backup)
            odd = self._act(
                first, createBackup={"name": "odd", "backup_type": "every day!", "rotation": 5}
            )
            self._note("backup of an odd type", first, odd["image_id"])
            shelved = self._server("shelved", imageRef=base)
            self._act(shelved, shelve=None)
            self._note("shelve", shelved, self._named(glance, "shelved-shelved"))
            self._act(shelved, unshelve=None)
            volumes = self._server("volumes", block_device_mapping_v2=[self._volume()])
            self._note("volume-backed snapshot", volumes, self._snapshot(volumes))
            daily = {"relation_kind": "backup", "relation_label": "daily", "color": "red"}
            self._note("backup by createImage", first, self._snapshot(first, **daily))
            self._note("volume-backed backup", volumes, self._snapshot(volumes, **daily))
            unlabelled = self._snapshot(volumes, relation_kind="backup")
            self._note("volume-backed backup without a label", volumes, unlabelled)
            self._outcome["malformed"] = self._malformed(glance, first, volumes)
            self._note("snapshot by an administrator", first, self._snapshot(first, ADMIN))
            forged = self._snapshot(
                first, instance_uuid=shelved, image_type="backup", backup_type="daily"
            )
            self._note("snapshot with forged metadata", first, forged)
            heir = self._server("heir", block_device_mapping_v2=[self._from_image(backup)])
            self._note("volume-backed, started from a backup", heir, self._snapshot(heir))
            self._note("cross-cell resize", first, self._resize_across_cells(first))
            self._outcome["base"] = base
            self._nova_delete(heir)
            self._outcome["deleted"] = heir

    def _malformed(self, glance: Glance, *servers: str) -> dict[str, Any]:
        """Return Nova's responses to malformed metadata, and the images that they leave."""
        before = list(self._taken)
        given = {
            "kind": {"relation_kind": "snapshot"},
            "only a label": {"relation_label": "daily"},
            "label": {"relation_kind": "backup", "relation_label": "every day!"},
        }
        refused, wanted = dict[str, Any](), dict[str, Any]()
        for name, metadata in given.items():
            wanted = {"name": "malformed", "metadata": metadata}
            refused[name] = [
                _refusal(lambda: self._act(server, createImage=wanted))  # noqa: B023
                for server in servers
            ]
        wanted = {"backup_type": "daily", "rotation": 5, **wanted}
        refused["createBackup"] = [_refusal(lambda: self._act(servers[0], createBackup=wanted))]
        images = glance.call("GET", "/images?name=malformed").json()["images"]
        return {"refused": refused, "images": images, "nothing taken": self._taken == before}

    def _note(self, action: str, server_id: str, image_id: str) -> None:
        self._outcome["images"][action] = {"instance_id": server_id, "image_id": image_id}

    def _named(self, glance: Glance, name: str) -> str:
        newest = glance.call("GET", f"/images?name={name}&limit=1").json()["images"][0]
        image_id: str = newest["id"]
        return image_id

    def _nova_delete(self, server_id: str) -> None:
        url = f"{self.api_fixture.base_url}/servers/{server_id}"
        requests.delete(url, headers={"X-Auth-Token": USER}, timeout=60).raise_for_status()

    def _volume(self) -> dict[str, Any]:
        uuid = nova_fixtures.CinderFixture.IMAGE_BACKED_VOL
        boot = {"source_type": "volume", "destination_type": "volume", "boot_index": 0}
        return {**boot, "uuid": uuid}

    def _from_image(self, image_id: str) -> dict[str, Any]:
        boot = {"source_type": "image", "destination_type": "volume", "boot_index": 0}
        return {**boot, "uuid": image_id, "volume_size": 1}

    def _resize_across_cells(self, server_id: str) -> str:
        """Run the conductor's task that creates an image, without the rest of the resize."""
        context = get_admin_context()
        context.project_id, context.user_id, context.auth_token = "demo", "alice", USER
        context.service_catalog = []
        instance = objects.Instance.get_by_uuid(
            context, server_id, expected_attrs=["flavor", "system_metadata"]
        )
        instance.task_state = "resize_prep"
        instance.save()
        task = cross_cell_migrate.PrepResizeAtSourceTask(
            context,
            instance,
            instance.flavor,
            mock.Mock(),
            mock.Mock(is_bfv=False),
            mock.Mock(),
            nova_glance.API(),
        )
        image_id: str = task.execute()
        instance.task_state = None
        instance.save()
        return image_id

    def _rotate(self, name: str) -> dict[str, list[str]]:
        """Return the images with ``image_type=backup`` before and after a fourth backup."""
        with self._with(name) as glance:
            base = glance.image(ADMIN, visibility="public", name="base")
            server = self._server("rotated", imageRef=base)
            backups = [self._backup(server, f"backup {number}", 3) for number in (1, 2, 3)]
            heir = self._server("heir", block_device_mapping_v2=[self._from_image(backups[2])])
            inherited = self._snapshot(heir)
            rename = [{"op": "replace", "path": "/name", "value": "of another server"}]
            patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
            glance.call("PATCH", f"/images/{inherited}", data=json.dumps(rename), headers=patch)
            claims = {"instance_uuid": server, "image_type": "backup", "backup_type": "daily"}
            glance.image(active=False, name="never uploaded", **claims)
            before = glance.backups()
            self._backup(server, "backup 4", 3)
            return {"before": before, "after": glance.backups()}

    def _send_no_service_token_in_rotations(self) -> None:
        """Only during rotations, since the API has the same configuration."""
        rotate = ComputeManager._rotate_backups

        def without(*args: Any) -> None:
            self.flags(send_service_user_token=False, group="service_user")
            rotate(*args)
            self.flags(send_service_user_token=True, group="service_user")

        self.stub_out("nova.compute.manager.ComputeManager._rotate_backups", without)

    def _session(self, token: str) -> Session:
        auth: Any = loading.get_plugin_loader("admin_token").load_from_options(
            endpoint=self.api_fixture.base_url, token=token
        )
        return Session(auth)

    def _carry(self) -> dict[str, dict[str, str]]:
        """Return the servers with a policy and their owners, as their user and others see them."""
        first = self._outcome["images"]["snapshot"]["instance_id"]
        metadata = {METADATA_KEY: write({"keep_last": 3})}
        self._nova(f"/servers/{first}/metadata", {"metadata": metadata})
        asked = {
            "one": (USER, ServerScope(first)),
            "none": (USER, ServerScope(INSTALLATION)),
            "own": (USER, ServerScope()),
            "stranger": (STRANGER, ServerScope()),
            "project": (ADMIN, ServerScope(project_id="demo")),
            "another": (ADMIN, ServerScope(project_id="other")),
            "all": (ADMIN, ServerScope(all_projects=True)),
        }
        return {name: self._carried(*of) for name, of in asked.items()}

    def _carried(self, token: str, scope: ServerScope) -> dict[str, str]:
        found = stored_policies(self._manager(token), scope)
        return {id: it.project_id for id, it in found.items() if it.policy}

    def _ask_nova(self) -> dict[str, str | None]:
        """Return the projects of a server, of a deleted server and of an unknown one."""
        compute = Compute(Adapter(self._session(ADMIN), service_type="compute"))
        first = self._outcome["images"]["snapshot"]["instance_id"]
        asked = {"first": first, "deleted": self._outcome["deleted"], "unknown": INSTALLATION}
        return {name: compute.project_of(id) for name, id in asked.items()}

    def _judge_deletions(self) -> dict[str, str]:
        """Return whether the deletion of existing, deleted and hidden servers may be recorded."""
        first = self._outcome["images"]["snapshot"]["instance_id"]
        asked = {
            "there": (ADMIN, first),
            "deleted": (ADMIN, self._outcome["deleted"]),
            "unknown": (ADMIN, INSTALLATION),
            "by its user": (USER, self._outcome["deleted"]),
        }
        return {name: self._refusal(*of) for name, of in asked.items()}

    def _find_by_name(self) -> dict[str, Any]:
        """Return the servers that users find by a name, and the pages of names that they see."""
        with self._with("filtered"):
            odd = self._server(ODD_NAME, imageRef=self._outcome["base"])
            twin = self._server("shelved", imageRef=self._outcome["base"])
        compute = {token: ComputeOfCloud(self._manager(token)) for token in (USER, STRANGER, ADMIN)}

        def pages(token: str, **scope: str) -> list[int]:
            return [len(names) for names in compute[token].pages({"limit": "3", **scope})]

        everybody = {"all_tenants": "True"}
        return {
            "made": [odd, twin],
            "odd": list(compute[USER].named(ODD_NAME)),
            "twins": sorted(compute[USER].named("shelved")),
            "nobody": [*compute[USER].named("shelve"), *compute[USER].named("SHELVED")],
            "stranger": list(compute[STRANGER].named(ODD_NAME)),
            "pages": {
                "own": pages(USER),
                "stranger": pages(STRANGER),
                "refused": pages(USER, **everybody),
                "all": pages(ADMIN, **everybody),
            },
        }

    def _manager(self, token: str) -> Any:
        """Return a manager like python-openstackclient's, with a catalogue that names this Nova."""
        connection = Connection(session=self._session(token))
        images = SimpleNamespace(endpoint="http://glance.example")
        return SimpleNamespace(sdk_connection=connection, auth_ref=None, related_images=images)

    def _refusal(self, token: str, server_id: str) -> str:
        try:
            image_deletion.DeletionCheck(self._manager(token)).require_deleted(server_id)
        except CommandError as error:
            return str(error)
        return ""

    def _without_filter(self) -> dict[str, Any]:
        with self._with("plain") as glance:
            server = self._server("plain", imageRef=glance.image(name="base"))
            made = [self._snapshot(server), self._backup(server, "backup", 3)]
            there = glance.call("GET", "/images").json()["images"]
            known = {image["id"]: image["status"] for image in there}
        return {"made": [known[id] for id in made], "log": self._warnings.output}

    def _without_database(self) -> dict[str, Any]:
        self.flags(num_retries=1, group="glance")
        with self._with("down") as glance:
            base = glance.image(name="base")
            server = self._server("down", imageRef=base)
            shelved = self._server("not shelved", imageRef=base)
            volumes = self._outcome["images"]["volume-backed snapshot"]["instance_id"]
            actions = {
                "createImage": lambda: self._snapshot(server),
                "createBackup": lambda: self._backup(server, "backup", 3),
                "createImage of volumes": lambda: self._snapshot(volumes),
                "shelve": lambda: self._act(shelved, shelve=None),
            }
            refused = {name: _refusal(action) for name, action in actions.items()}
            there = glance.call("GET", "/images").json()["images"]
        self.flags(num_retries=0, group="glance")
        left = self._state(shelved)
        self._nova(f"/servers/{shelved}/action", {"os-resetState": {"state": "active"}}, ADMIN)
        return {
            "refused": refused,
            "images": [image["name"] for image in there],
            "states": [self._settled(server), self._settled(volumes)],
            "shelved": [left, self._state(shelved)],
        }

    def _start_each_way(self) -> dict[str, Any]:
        """Return the servers that are started from images and volumes, also those that fail."""
        sent = self._count_reports()
        with self._with("filtered") as glance:
            base, other = (glance.image(name=name) for name in ("to start from", "to rebuild from"))
            boot = self._from_image(base)
            many = {"name": "many", "flavorRef": "1", "networks": "none", "imageRef": base}
            started = {
                "image": self._server("from an image", imageRef=base),
                "root volume": self._outcome["images"]["volume-backed snapshot"]["instance_id"],
                "image into a volume": self._server("into", block_device_mapping_v2=[boot]),
            }
            del sent[:]
            reservation = {"min_count": 3, "return_reservation_id": True}
            self._nova("/servers", {"server": many | reservation})
            requests_for_many = list(sent)
            self._act(started["image"], rebuild={"imageRef": other})
            # Nova refuses it after the first checks
            into = started["image into a volume"]
            assert _refusal(lambda: self._act(into, rebuild={"imageRef": other}))
            started["unacceptable"] = self._failing(UNACCEPTABLE, imageRef=base)
            started["no host"] = self._failing("huge", imageRef=base, flavorRef=self._huge())
        return {"images": [base, other], "servers": started, "many": requests_for_many}

    def _count_reports(self) -> list[Any]:
        """Return the list to which the number of items of each report is added."""
        sent: list[Any] = []
        send = reporting._post

        def counting(glance: Any, path: str, body: Any, seconds: float) -> Any:
            if path != paths.WITNESSES:
                sent.append([path, len(body[path[1:]])])
            return send(glance, path, body, seconds)

        self.stub_out("related_images.integrations.reporting._post", counting)
        return sent

    def _failing(self, name: str, **boot: Any) -> str:
        server = {"name": name, "flavorRef": "1", "networks": "none", **boot}
        server_id: str = self._nova("/servers", {"server": server})["server"]["id"]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            shown = self._shown_server(server_id)
            if shown["status"] == "ERROR":
                return server_id
            time.sleep(0.05)
        raise AssertionError(f"the server is {shown['status']}")

    def _shown_server(self, server_id: str) -> Any:
        url = f"{self.api_fixture.base_url}/servers/{server_id}"
        return requests.get(url, headers={"X-Auth-Token": USER}, timeout=60).json()["server"]

    def _huge(self) -> str:
        flavor = {"name": "huge", "ram": 99_999_999, "vcpus": 1, "disk": 1, "id": "huge"}
        return str(self._nova("/flavors", {"flavor": flavor}, ADMIN)["flavor"]["id"])

    def _refuse_starts(self) -> dict[str, Any]:
        """Return what Nova answers if the fake Glance refuses a start, and what is left then."""
        results: dict[str, Any] = {}
        with self._with("refusing"):
            for name, image_id in json.loads(self._plan["starts"]).items():
                before = self._warnings.output
                seconds = 2.0 if name == "silent" else PATIENCE
                self.stub_out("related_images.integrations.reporting.SECONDS", seconds)
                refused = _refusal(lambda: self._server(name, imageRef=image_id))  # noqa: B023
                results[name] = [refused, self._warnings.output.removeprefix(before)]
        url = f"{self.api_fixture.base_url}/servers"
        listed = requests.get(url, headers={"X-Auth-Token": USER}, timeout=60).json()["servers"]
        results["names"] = [server["name"] for server in listed]
        return results

    def _state(self, server_id: str) -> list[str | None]:
        found = objects.Instance.get_by_uuid(get_admin_context(), server_id)
        return [found.vm_state, found.task_state]

    def _refused(self) -> dict[str, Any]:
        """Return Nova's response to each refusal, and to that of a missing service token."""
        with self._with("filtered") as glance:
            server = self._server("refused", imageRef=glance.image(name="base"))
            self.flags(send_service_user_token=False, group="service_user")
            refused = {"without a service token": _refusal(lambda: self._snapshot(server))}
            self.flags(send_service_user_token=True, group="service_user")
        with self._with("refusing"):
            for name in self._plan["refusals"].split(","):
                wanted = {"name": name, "metadata": {}}
                refused[name] = _refusal(lambda: self._act(server, createImage=wanted))  # noqa: B023
        return refused

    def _shown(self) -> dict[str, list[Any]]:
        """Return the exit code and the errors of the openstack command for each refusal."""
        server = self._outcome["images"]["snapshot"]["instance_id"]
        identity = f"--os-auth-type admin_token --os-token {USER} --os-endpoint"
        words = [*identity.split(), self.api_fixture.base_url, "server", "image", "create", server]
        shown = {}
        with self._with("refusing"):
            for name in self._plan["refusals"].split(","):
                with redirect_stderr(io.StringIO()) as errors:
                    code = shell.main([*words, "--name", name])
                shown[name] = [code, errors.getvalue()]
        return shown


def _refusal(action: Callable[[], object]) -> list[Any] | None:
    """Return status, message and ``Retry-After`` of an error response of Nova."""
    try:
        action()
    except requests.HTTPError as error:
        answer = error.response
        assert answer is not None
        (fault,) = answer.json().values()
        assert fault["code"] == answer.status_code
        return [answer.status_code, fault["message"], answer.headers.get("Retry-After")]
    return None


if __name__ == "__main__":
    result = testtools.TestResult()
    Lab("test_all").run(result)
    sys.exit(not result.wasSuccessful())
