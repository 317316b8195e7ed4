"""The registry that a command line names, in the words of every OpenStack client."""

import argparse
from typing import Any, Final

from related_images.errors import ConfigurationError

_PLUGINS: Final = ("admin_token", "password", "token", "v3applicationcredential")
"""The ways of authentication that have options here; clouds.yaml and OS_* take all of them."""

PATIENCE: Final = 60.0
"""Seconds to wait for an answer, unless clouds.yaml says otherwise."""

_REMEDY: Final = (
    "name a cloud of clouds.yaml with --os-cloud, or give --os-auth-type and what belongs to it"
)
_MISSING: Final = "openstacksdk is not installed here; `pip install 'related-images[reconcile]'`"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the command line say where the registry is and who asks it."""
    group = parser.add_argument_group(
        "which registry", "as the openstack command takes them; OS_* variables do the same"
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
    found = {option.name for plugin in _PLUGINS for option in get_plugin_options(plugin)}
    return sorted(name.replace("_", "-") for name in found)


def image_adapter(given: argparse.Namespace) -> Any:
    """A keystoneauth adapter of the image service, as :func:`adapter` makes it."""
    return adapter(given, "image")


def adapter(given: argparse.Namespace, service: str) -> Any:
    """A keystoneauth adapter of a service of the cloud that the command line names.

    :raises ConfigurationError: if it names none
    """
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    ours = {name: value for name, value in vars(given).items() if name.startswith("os_")}
    try:
        cloud = OpenStackConfig().get_one(argparse=argparse.Namespace(**ours))
        found = cloud.get_session_client(service)
    except (ConfigException, ClientException) as error:
        raise ConfigurationError(f"the registry cannot be asked: {error}; {_REMEDY}") from error
    except (AttributeError, TypeError, ValueError) as error:
        # openstacksdk reads what is in the file without looking what it is
        raise ConfigurationError(
            f"something in clouds.yaml or OS_* is of the wrong type: {error}; {_REMEDY}"
        ) from error
    found.session.timeout = found.session.timeout or PATIENCE
    return found
