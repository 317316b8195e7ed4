"""The lookup of the project of a server in Nova."""

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from requests_mock import Mocker

from related_images.manage.nova_servers import Compute

NOVA = "http://nova.example"
SERVER = "6f70656e-7374-4163-8b20-6e6f76612031"
OTHER = "6f70656e-7374-4163-8b20-6e6f76612032"


@pytest.mark.parametrize(("shown", "project"), [(SERVER, "demo"), (OTHER, None)])
def test_a_server_with_another_id_is_ignored(shown: str, project: str | None) -> None:
    """Nova ignores a filter that its policy denies to the caller, and lists other servers."""
    with Mocker() as nova:
        nova.get(f"{NOVA}/servers/detail", json={"servers": [{"id": shown, "tenant_id": "demo"}]})
        compute = Compute(Adapter(Session(Token(NOVA, "token")), endpoint_override=NOVA))
        assert compute.project_of(SERVER) == project
