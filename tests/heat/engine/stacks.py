"""Stacks of a real heat-engine in this process, with a real Glance.

Heat's database is SQLite in memory, and its client of Keystone is Heat's fake one. Requests to
Glance go over HTTP and are recorded.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import requests
import yaml
from heat.common import context, messaging, template_format
from heat.db import api as database
from heat.db import models
from heat.engine import environment, resources, scheduler, stack, template
from keystoneauth1 import token_endpoint
from oslo_config import cfg
from requests.adapters import HTTPAdapter

from related_images.integrations import heat as plugin

GLANCE = "RELATED_IMAGES_TEST_GLANCE"
"""The environment variable with the URL of a Glance with the filter."""
PLAIN_GLANCE = "RELATED_IMAGES_TEST_PLAIN_GLANCE"
"""The environment variable with the URL of a Glance without the filter."""
DOWN_GLANCE = "RELATED_IMAGES_TEST_DOWN_GLANCE"
"""The environment variable with the URL of a Glance whose filter has no tables."""
FILES = "RELATED_IMAGES_TEST_FILES"
"""The environment variable with the URL of files that Glance may import."""
NOVA = "RELATED_IMAGES_TEST_NOVA"
"""The environment variable with the URL of the fake Nova."""
INSTALLATION = "2b9a5f3e-6a0d-4f6b-9d0a-5d0e7c1f4b11"
KEYSTONE = "heat.engine.clients.os.keystone.fake_keystoneclient.FakeKeystoneClient"

Source = str | Mapping[str, Any]

IMAGE = re.compile("/v2/images/[^/]+")
TEMPLATES = Path(__file__).parents[3] / "docs" / "heat"


def start_engine() -> None:
    """Configure this process as a heat-engine with the plugin."""
    conf = cfg.CONF
    conf.import_opt("keystone_backend", "heat.engine.clients.os.keystone.heat_keystoneclient")
    conf([], project="heat", default_config_files=[])
    conf.set_override("connection", "sqlite://", "database")
    conf.set_override("plugin_dirs", list(plugin.__path__))
    conf.set_override("environment_dir", os.devnull)
    conf.set_override("keystone_backend", KEYSTONE)
    conf.set_override("deferred_auth_method", "password")
    conf.set_override("max_nova_api_microversion", "2.45")
    messaging.setup("fake://", optional=True)
    models.BASE.metadata.create_all(database.get_engine())
    resources.initialise()
    # Heat checks a resource once per second, which is too slow for tests
    scheduler.TaskRunner._sleep = lambda _, seconds: time.sleep(min(seconds or 0, 0.05))


@dataclass(frozen=True)
class Sent:
    method: str
    path: str
    body: Any


class Recorder(HTTPAdapter):
    """Sends requests and records them.

    :ivar lost: the number of GET requests for an image that get a 502
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.lost = 0

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        body = json.loads(request.body) if request.body else None
        path = urlsplit(request.url).path
        self.sent.append(Sent(request.method, path, body))
        if self.lost and request.method == "GET" and IMAGE.fullmatch(path):
            self.lost -= 1
            return _bad_gateway(request)
        return super().send(request, *args, **kwargs)

    @property
    def paths(self) -> set[str]:
        return {sent.path for sent in self.sent}

    def bodies(self, method: str, path_end: str = "") -> list[Any]:
        return [
            sent.body
            for sent in self.sent
            if sent.method == method and sent.path.endswith(path_end)
        ]


def _bad_gateway(request: Any) -> requests.Response:
    answer = requests.Response()
    answer.request, answer.url, answer.status_code = request, request.url, 502
    answer._content = b"<html>Bad Gateway</html>"
    return answer


class Endpoints(token_endpoint.Token):
    """A static token, with an endpoint of Glance and one of Nova."""

    def get_endpoint(self, session: Any, **filters: Any) -> str:
        nova = filters.get("service_type") == "compute"
        return os.environ[NOVA] if nova else str(super().get_endpoint(session, **filters))


@dataclass
class User:
    """A user of a project."""

    project: str
    roles: str = "member"
    recorder: Recorder = field(default_factory=Recorder)

    @property
    def token(self) -> str:
        return f"user:{self.project}:{self.roles}"

    @property
    def context(self) -> Any:
        result = context.RequestContext(
            auth_plugin=Endpoints(os.environ[GLANCE], self.token),
            project_id=self.project,
            user_id="user",
            username="user",
            password="password",
            is_admin=False,
            roles=self.roles.split(","),
            overwrite=False,
        )
        result._keystone_session.session = requests.Session()
        result._keystone_session.session.mount("http://", self.recorder)
        return result

    def ask(self, method: str, path: str, token: str = "", **options: Any) -> Any:
        """Send a request to Glance without Heat, which is not recorded."""
        headers = {"X-Auth-Token": token or self.token, **options.pop("headers", {})}
        url = f"{os.environ[GLANCE]}/v2{path}"
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def image(self, image_id: str) -> Any:
        return self.ask("GET", f"/images/{image_id}").json()


class Stack:
    """A stack of ``user``.

    :param source: a template, as YAML or as a mapping
    """

    def __init__(self, user: User, source: Source, **parameters: str) -> None:
        self.user = user
        self._stack = self._parse(f"stack-{uuid4().hex[:8]}", source, parameters)

    def _parse(self, name: str, source: Source, parameters: dict[str, str], **more: Any) -> Any:
        text = source if isinstance(source, str) else yaml.safe_dump(source)
        given = environment.Environment({"parameters": parameters})
        parsed = template.Template(template_format.parse(text), env=given)
        return stack.Stack(self.user.context, name, parsed, timeout_mins=2, **more)

    def create(self) -> "Stack":
        self._stack.validate()
        self._stack.store()
        self._stack.create()
        self._reload()
        return self

    def update(self, source: Source, **parameters: str) -> "Stack":
        return self._update(self._parse(self._stack.name, source, parameters))

    def update_with_rollback(self, source: Source) -> "Stack":
        """Update the stack with a rollback if that fails."""
        return self._update(self._parse(self._stack.name, source, {}, disable_rollback=False))

    def _update(self, new: Any) -> "Stack":
        new.validate()
        self._stack.update(new)
        self._reload()
        return self

    def adopt(self, name: str, resource_id: str, **data: Any) -> "Stack":
        """Adopt a resource of an abandoned stack.

        :param data: the data of the resource
        """
        texts = {key: json.dumps(value) for key, value in data.items()}
        resource = {"resource_id": resource_id, "resource_data": texts, "metadata": {}}
        self._stack.adopt_stack_data = {"resources": {name: resource}}
        self._stack.store()
        self._stack.adopt()
        self._reload()
        return self

    def check(self) -> "Stack":
        self._stack.check()
        self._reload()
        return self

    def delete(self) -> "Stack":
        self._stack.delete()
        return self

    def _reload(self) -> None:
        """Load the stack from Heat's database."""
        self._stack.persist_state_and_release_lock("engine")
        self._stack = stack.Stack.load(self.user.context, stack_id=self._stack.id)

    def validate(self) -> None:
        self._stack.validate()

    @property
    def stack_id(self) -> str:
        return str(self._stack.id)

    @property
    def state(self) -> str:
        return "_".join(self._stack.state)

    @property
    def reason(self) -> str:
        return str(self._stack.status_reason)

    def __getitem__(self, name: str) -> Any:
        return self._stack[name]

    def output(self, name: str) -> Any:
        self._stack._update_all_resource_data(for_resources=False, for_outputs=True)
        return self._stack.outputs[name].get_value()


@contextmanager
def configured(**options: Any) -> Iterator[None]:
    """Set options in ``[related_images]`` of Heat."""
    for name, value in options.items():
        cfg.CONF.set_override(name, value, "related_images")
    try:
        yield
    finally:
        for name in options:
            cfg.CONF.clear_override(name, "related_images")
