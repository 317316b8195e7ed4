"""The options that select a cloud and an account, as in other OpenStack clients."""

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
        "cloud and account",
        "The options of the openstack command. OS_* environment variables work too.",
    )
    group.add_argument("--os-cloud", metavar="NAME", help="cloud in clouds.yaml")
    group.add_argument(
        "--os-auth-type",
        metavar="NAME",
        help="authentication plugin, such as password or admin_token",
    )
    group.add_argument("--os-region-name", metavar="NAME", help="region of the endpoints")
    group.add_argument(
        "--os-interface",
        metavar="NAME",
        help="interface of the endpoints: public, internal or admin",
    )
    for service, name in (
        ("image", "Glance"),
        ("compute", "Nova"),
        ("block-storage", "Cinder"),
    ):
        group.add_argument(
            f"--os-{service}-endpoint-override",
            metavar="URL",
            help=f"endpoint of {name}, instead of the one in the catalog",
        )
    group.add_argument("--os-cacert", metavar="FILE", help="CA certificates for TLS")
    for name, help_text in _authentication_options():
        group.add_argument(f"--os-{name}", metavar="TEXT", help=help_text.replace("%", "%%"))


def _authentication_options() -> list[tuple[str, str]]:
    """Return the names and the help of the options of all plugins, sorted by name."""
    try:
        from keystoneauth1.loading import get_plugin_options
    except ImportError:
        return []
    options = [option for plugin in _PLUGINS for option in get_plugin_options(plugin)]
    texts = {option.name.replace("_", "-"): option.help or "" for option in options}
    return sorted(texts.items())


def image_adapter(args: argparse.Namespace) -> Any:
    """Return a keystoneauth adapter of Glance, see :func:`adapter`.

    :param args: the parsed arguments
    :raises ConfigurationError: if they do not select a cloud and an account
    """
    return adapter(args, "image")


def adapter(args: argparse.Namespace, service: str) -> Any:
    """Return a keystoneauth adapter of a service of the selected cloud.

    :param args: the parsed arguments
    :param service: the service type, such as ``image``
    :raises ConfigurationError: if the arguments do not select a cloud and an account
    """
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    os_options = {name: value for name, value in vars(args).items() if name.startswith("os_")}
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
