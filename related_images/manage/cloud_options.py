"""The options that select a cloud and an account, as every OpenStack client has them."""

import argparse
from typing import Any, Final

from related_images.errors import ConfigurationError

_PLUGINS: Final = ("admin_token", "password", "token", "v3applicationcredential")
"""The authentication plugins with options here; clouds.yaml and OS_* variables accept any."""

TIMEOUT: Final = 60.0
"""Seconds to wait for a response, unless clouds.yaml sets ``api_timeout``."""

_ADVICE: Final = (
    "select a cloud of clouds.yaml with --os-cloud, or set --os-auth-type and the options that it "
    "needs"
)
_MISSING: Final = "openstacksdk is not installed; run `pip install 'related-images[reconcile]'`"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the endpoint of Glance and the account.

    :param parser: the parser of a command
    """
    group = parser.add_argument_group(
        "cloud and account", "the options of the openstack command; OS_* variables work as well"
    )
    group.add_argument("--os-cloud", metavar="NAME", help="a cloud of clouds.yaml")
    group.add_argument("--os-auth-type", metavar="NAME", help="such as password or admin_token")
    group.add_argument("--os-region-name", metavar="NAME")
    group.add_argument("--os-interface", metavar="NAME", help="public, internal or admin")
    group.add_argument("--os-image-endpoint-override", metavar="URL")
    group.add_argument("--os-compute-endpoint-override", metavar="URL")
    group.add_argument("--os-cacert", metavar="FILE")
    for name in _authentication_options():
        group.add_argument(f"--os-{name}", metavar="TEXT")


def _authentication_options() -> list[str]:
    try:
        from keystoneauth1.loading import get_plugin_options
    except ImportError:
        return []
    names = {option.name for plugin in _PLUGINS for option in get_plugin_options(plugin)}
    return sorted(name.replace("_", "-") for name in names)


def image_adapter(given: argparse.Namespace) -> Any:
    """Return a keystoneauth adapter of Glance, see :func:`adapter`.

    :param given: the parsed arguments
    :raises ConfigurationError: if they do not select a cloud and an account
    """
    return adapter(given, "image")


def adapter(given: argparse.Namespace, service: str) -> Any:
    """Return a keystoneauth adapter of a service of the selected cloud.

    :param given: the parsed arguments
    :param service: the service type, such as ``image``
    :raises ConfigurationError: if the arguments do not select a cloud and an account
    """
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    os_options = {name: value for name, value in vars(given).items() if name.startswith("os_")}
    try:
        cloud = OpenStackConfig().get_one(argparse=argparse.Namespace(**os_options))
        client = cloud.get_session_client(service)
    except (ConfigException, ClientException) as error:
        raise ConfigurationError(f"the cloud cannot be used: {error}; {_ADVICE}") from error
    except (AttributeError, TypeError, ValueError) as error:
        # openstacksdk does not check the types of the values in clouds.yaml
        raise ConfigurationError(
            f"a value in clouds.yaml or an OS_* variable is of the wrong type: {error}; {_ADVICE}"
        ) from error
    client.session.timeout = client.session.timeout or TIMEOUT
    return client
