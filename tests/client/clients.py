"""The supported OpenStack clients, for one endpoint each."""

from collections.abc import Callable
from typing import Any

import glanceclient
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from openstack.connection import Connection

INSTALLATION = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_INSTALLATION = "11111111-2222-4333-8444-555555555555"
SERVICE = "nova:service-project:member,reader,service"
MEMBER = "alice:service-project:member,reader"

Maker = Callable[[str, str], Any]


def session(endpoint: str, token: str) -> Session:
    return Session(auth=Token(endpoint, token))


MAKERS: dict[str, Maker] = {
    "glanceclient-session": lambda endpoint, token: glanceclient.Client(
        "2", session=session(endpoint, token)
    ),
    "glanceclient-endpoint": lambda endpoint, token: glanceclient.Client(
        "2", endpoint=endpoint, token=token
    ),
    "openstacksdk": lambda endpoint, token: Connection(session=session(endpoint, token)),
    "adapter": lambda endpoint, token: Adapter(session(endpoint, token), service_type="image"),
}
