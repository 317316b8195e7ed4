"""A filter that adds a service token and the instance headers of one server to every request."""

from collections.abc import Callable
from typing import Any

from related_images.middleware.environ import environ_key
from related_images.protocol import headers

ASSERTED = {
    environ_key(headers.INSTALLATION_UUID): "11111111-2222-4333-8444-555555555555",
    environ_key(headers.INSTANCE_ID): "every-request",
    "HTTP_X_SERVICE_ROLES": "service",
    "HTTP_X_SERVICE_IDENTITY_STATUS": "Confirmed",
}


def filter_factory(global_conf: dict[str, str], **local_conf: str) -> Callable[[Any], Any]:
    """Return the filter for paste."""

    def make(app: Any) -> Any:
        return lambda environ, start_response: app(environ | ASSERTED, start_response)

    return make
