"""How nova-api sends its reports to Glance."""

from functools import cache
from typing import Any, Final

from related_images.integrations.reporting import Reports, Service


def nova_reports(installation_uuid: str, *, has_service_user: bool) -> Reports:
    """Return what sends the reports of nova-api.

    :param installation_uuid: the installation of this Nova
    :param has_service_user: whether Nova has a service user
    """
    return Reports(NOVA_API, installation_uuid, has_service_user=has_service_user)


def _client(context: Any) -> Any:
    """Return a glanceclient with the tokens that Nova sends with its requests to Glance."""
    from nova.image import glance

    endpoint = glance.generate_glance_url(context)
    return glance._glanceclient_from_endpoint(context, endpoint, 2)


def _service_client() -> Any:
    """Return a glanceclient with the token of the service user."""
    from nova import context

    made = context.get_admin_context()
    made.user_auth_plugin = _service_auth()
    return _client(made)


@cache
def _service_auth() -> Any:
    """Return the plugin of the service user, which keeps its token.

    Nova's own function for this exists only since Nova 33.
    """
    from keystoneauth1 import loading
    from nova.conf import CONF
    from nova.conf.service_token import SERVICE_USER_GROUP

    return loading.load_auth_from_conf_options(CONF, SERVICE_USER_GROUP)


NOVA_API: Final = Service("nova-api", "the start of a server", _client, _service_client)
