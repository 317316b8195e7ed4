"""Heat's API over HTTP in this process, in front of the real engine; only the message bus is left
out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from unittest import mock
from wsgiref.simple_server import WSGIRequestHandler, make_server

from heat.api.openstack.v1 import API
from heat.common import wsgi
from heat.engine.service import EngineService
from heat.rpc.client import EngineClient
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from openstack.connection import Connection
from oslo_config import cfg

from tests.heat.engine.stacks import GLANCE, User


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class InProject(Token):
    """A static token of a project."""

    def __init__(self, url: str, user: User) -> None:
        super().__init__(url, user.token)
        self._project = user.project

    def get_endpoint_data(self, session: Any, **filters: Any) -> Any:
        return None  # the endpoints are given; without Keystone there is nothing to discover

    def get_project_id(self, session: Any, **_: Any) -> str:
        return self._project


@contextmanager
def connected(user: User) -> Iterator[Connection]:
    """Yield a connection of openstacksdk to Heat and Glance."""
    engine = EngineService("host", "topic")
    app = API(cfg.CONF)

    def call(_: Any, context: Any, message: Any, **__: Any) -> Any:
        method, values = message
        return getattr(engine, method)(context, **values)

    def identified(environ: Any, start_response: Any) -> Any:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/v1", environ["PATH_INFO"][3:]
        wsgi.Request(environ).context = user.context
        return app(environ, start_response)

    with (
        mock.patch.object(EngineClient, "call", call),
        make_server("127.0.0.1", 0, identified, handler_class=Quiet) as server,
    ):
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Connection(
                session=Session(auth=InProject(os.environ[GLANCE], user)),
                orchestration_endpoint_override=f"http://127.0.0.1:{server.server_port}/v1/{user.project}",
                orchestration_api_version="1",
                image_endpoint_override=f"{os.environ[GLANCE]}/v2",
                image_api_version="2",
            )
        finally:
            server.shutdown()
            thread.join()
