"""The files that ``serve`` writes: the UUID of the installation, and clouds.yaml for clients."""

import uuid
from pathlib import Path
from typing import Final

from related_images import validation
from related_images.errors import ConfigurationError, NotServed, TupleMalformed

INSTALLATION: Final = "installation-uuid"
CLOUDS: Final = "clouds.yaml"

_MARK: Final = "# `related-images serve` overwrites this file at each start."

# With image_endpoint_override, openstacksdk gets the API versions from the root of Glance.
# auth.endpoint is the endpoint of all services; serve has no other service.
_CLOUD: Final = """\
  # {who}
  {name}:
    auth_type: admin_token
    auth:
      endpoint: {url}
      token: {token}
    image_endpoint_override: {url}
    has_compute: false
    compute_disabled_reason: related-images serve has no Nova.
"""

_CLOUDS: Final = {
    "alice": ("alice:demo:member", "a user of the project demo"),
    "nova": (
        "nova:demo:member,service",
        "a service in the project demo; it may record relations",
    ),
    "admin": ("admin:admin:admin", "an administrator"),
}


def installation(directory: Path) -> str:
    """Return the UUID of the installation. The first call generates it and writes it to a file.

    :param directory: the data directory
    :raises ConfigurationError: if the file does not contain a UUID
    """
    path = directory / INSTALLATION
    if not path.exists():
        path.write_text(f"{uuid.uuid4()}\n", "utf-8")
    try:
        return validation.installation_uuid(path.read_text("utf-8", "replace").strip())
    except TupleMalformed as error:
        raise ConfigurationError(
            f"{path} cannot be used: {error}; write the UUID into it, or delete it to get a new one"
        ) from error


def write_clouds(directory: Path, url: str) -> Path:
    """Write a clouds.yaml with the accounts of this Glance, and return its path.

    :param directory: the data directory
    :param url: the URL of Glance, without a version
    :raises NotServed: if the file exists and `serve` did not write it
    """
    path = directory / CLOUDS
    if path.exists() and not path.read_text("utf-8", "replace").startswith(_MARK):
        raise NotServed(
            f"{path} was not written by `related-images serve`, which would overwrite it; "
            "move it away, or choose another directory with --data-dir"
        )
    clouds = [
        _CLOUD.format(name=name, token=token, who=who, url=url)
        for name, (token, who) in _CLOUDS.items()
    ]
    path.write_text("\n".join([_MARK, "clouds:", *clouds]), "utf-8")
    return path
