"""Whose an instance is, as Nova says."""

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token
from requests_mock import Mocker

from related_images.manage.nova_servers import Compute

NOVA = "http://nova.example"
ASKED = "6f70656e-7374-4163-8b20-6e6f76612031"
OTHER = "6f70656e-7374-4163-8b20-6e6f76612032"


@pytest.mark.parametrize(("shown", "project"), [(ASKED, "demo"), (OTHER, None)])
def test_a_server_that_was_not_asked_for_tells_nothing(shown: str, project: str | None) -> None:
    """Nova ignores a filter that the policy denies the caller, and shows what else there is."""
    with Mocker() as nova:
        nova.get(f"{NOVA}/servers/detail", json={"servers": [{"id": shown, "tenant_id": "demo"}]})
        compute = Compute(Adapter(Session(Token(NOVA, "token")), endpoint_override=NOVA))
        assert compute.project_of(ASKED) == project
