"""``related-images reconcile --resources`` with a real Nova, in one process as :mod:`.lab`.

Run as ``python -m tests.nova.reconcile_lab PLAN OUTCOME``. The plan has the URL of a Glance with
the filter (``filtered``) and of a database (``database``). The outcome has the servers by name, and
what the command printed and changed.
"""

# ruff: noqa: I001
from tests.nova.lab import ADMIN, INSTALLATION, OUTCOME, PATIENCE, USER, Lab

import io
import json
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
import testtools
from nova import objects
from nova.context import get_admin_context, target_cell
from nova.db.main import api as nova_database
from nova.tests import fixtures as nova_fixtures
from sqlalchemy import select

from related_images.db import Database, notifications, tables
from related_images.db.notifications import Started
from related_images.manage.nova_admin import NovaAdmin
from related_images.manage.rate_limit import RateLimit
from related_images.model import InstanceRef
from keystoneauth1.adapter import Adapter
from tests import commands

RECORDED = ("kept", "gone", "failed", "soft-deleted", "waiting", "rebuilt")
"""The servers whose start is recorded."""


class ReconcileLab(Lab):
    """One Nova with one test, which reconciles its servers."""

    def test_reconcile(self) -> None:
        with self._with("filtered") as glance:
            base, other = (glance.image(ADMIN, visibility="public", name="base") for _ in range(2))
            servers = self._servers(base)
            self._act(servers["rebuilt"], rebuild={"imageRef": other})
        self.database = Database(self._plan["database"], 20)
        yesterday = datetime.now(UTC) - timedelta(days=1)
        started = [
            Started(InstanceRef(INSTALLATION, servers[name]), "demo", yesterday, base)
            for name in RECORDED
        ]
        notifications.store(self.database, started)
        self._outcome |= {"servers": servers, "base": base, "other": other, "runs": {}}
        self._delete(servers["gone"])
        self._run("user", USER)
        self.flags(max_limit=2, group="api")
        self._run("dry run", ADMIN, "--dry-run")
        self._run("done", ADMIN)
        self._run("again", ADMIN)
        down = objects.CellMappingList(objects=[self.cell_mappings["cell1"]])
        with nova_fixtures.DownCellFixture(down):
            self._run("cell down", ADMIN)
        self._outcome["purged marker"] = self._list_over_a_purged_marker(servers["kept"])
        OUTCOME.write_text(json.dumps(self._outcome, indent=1))

    def _servers(self, base: str) -> dict[str, str]:
        names = ("kept", "gone", "missed", "rebuilt")
        servers = {name: self._server(name, imageRef=base) for name in names}
        servers["volumes"] = self._server("volumes", block_device_mapping_v2=[self._volume()])
        servers["soft-deleted"] = self._server("soft-deleted", imageRef=base)
        self.flags(reclaim_instance_interval=3600)
        self._nova_delete(servers["soft-deleted"])
        self.flags(reclaim_instance_interval=0)
        huge = {"id": "huge", "name": "huge", "ram": 1, "vcpus": 1, "disk": 10_000_000}
        self._nova("/flavors", {"flavor": huge}, ADMIN)
        servers["failed"] = self._request("failed", base, flavor="huge")
        self._await(servers["failed"], "ERROR")
        conductor = "nova.conductor.api.ComputeTaskAPI.schedule_and_build_instances"
        self.stub_out(conductor, lambda *args, **kwargs: None)
        for name in ("waiting", "waiting too"):
            servers[name] = self._request(name, base)
            self._await(servers[name], "BUILD")
        return servers

    def _request(self, name: str, base: str, flavor: str = "1") -> str:
        server = {"name": name, "flavorRef": flavor, "networks": "none", "imageRef": base}
        server_id: str = self._nova("/servers", {"server": server})["server"]["id"]
        return server_id

    def _delete(self, server_id: str) -> None:
        self._nova_delete(server_id)
        self._await(server_id, None)

    def _await(self, server_id: str, status: str | None) -> None:
        """Wait until the server has this status; ``None`` if it does not exist."""
        url = f"{self.api_fixture.base_url}/servers/{server_id}"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = requests.get(url, headers={"X-Auth-Token": ADMIN}, timeout=60)
            shown = answer.json()["server"]["status"] if answer.ok else None
            if shown == status:
                return
            time.sleep(0.05)
        raise AssertionError(f"the server is {shown}, not {status}")

    def _run(self, name: str, token: str, *options: str) -> None:
        """Run the command; note its exit code, its output, and the live servers afterwards."""
        words = ["reconcile", "--resources", INSTALLATION, "--connection", self._plan["database"]]
        words += ["--os-auth-type", "admin_token", "--os-token", token, "--rate", "10000"]
        words += ["--os-endpoint", self.api_fixture.base_url]
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = commands.run(*words, *options)
        live = select(tables.instance.c.instance_id).where(tables.instance.c.ended_at.is_(None))
        starts = (
            select(tables.instance.c.instance_id, tables.image.c.uuid, tables.relation.c.source)
            .join(tables.relation, tables.relation.c.instance_ref == tables.instance.c.id)
            .join(tables.image, tables.image.c.id == tables.relation.c.image_ref)
            .order_by(tables.relation.c.created_at)
        )
        read = self.database.read
        self._outcome["runs"][name] = {
            "code": code,
            "counts": json.loads(out.getvalue()) if code in (0, 3) else None,
            "error": err.getvalue(),
            "live": read(lambda connection: list(connection.execute(live).scalars())),
            "starts": read(lambda connection: [list(row) for row in connection.execute(starts)]),
        }

    def _list_over_a_purged_marker(self, kept: str) -> dict[str, Any]:
        """List one server per page; delete and purge the last server of a page meanwhile."""
        self.flags(max_limit=1, group="api")
        nova = NovaAdmin(Adapter(self._session(ADMIN), service_type="compute"), RateLimit(10_000))
        listed, purged = list[str](), None
        for page in nova.pages(""):
            listed += page.resources
            if purged is None and page.until not in ("", kept):
                purged = page.until
                self._purge(str(purged))
        return {"listed": listed, "purged": purged}

    def _purge(self, server_id: str) -> None:
        self._delete(server_id)
        for cell in self.cell_mappings.values():
            with target_cell(get_admin_context(), cell) as context:
                nova_database.archive_deleted_rows(context, max_rows=1000)


if __name__ == "__main__":
    result = testtools.TestResult()
    ReconcileLab("test_reconcile").run(result)
    sys.exit(not result.wasSuccessful())
