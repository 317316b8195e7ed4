"""Check a relation as the stack's user before Heat records it with its own account."""

from collections.abc import Mapping
from typing import Any

from novaclient import exceptions as nova_errors

from related_images import model, validation
from related_images.integrations.heat.heat_credentials import GROUP, RecordingRefused, option
from related_images.integrations.heat.validation import WantedRelation


def authorize(
    nova: Any, wanted: WantedRelation, image: Mapping[str, Any] | None, project: str
) -> str | None:
    """Raise unless Nova and Glance show the user that the relation is true.

    :param nova: novaclient with the user's token
    :param wanted: the relation to record
    :param image: the image as Glance shows it to the user; ``None`` if it does not exist yet
    :param project: ID of the stack's project
    :returns: ID of the project of the server, if Nova shows it
    :raises RecordingRefused: if Heat is not permitted to record the relation
    """
    _check_installation(wanted)
    server = _server(nova, wanted.instance.instance_id)
    if wanted.kind == model.BOOT:
        _check_boot(server, image)
    elif image is not None and image.get("owner") != project:
        raise RecordingRefused(
            f"the image {image['id']} belongs to another project, so Heat does not record it as "
            f"a {wanted.kind} of the server {server.id}; nothing was recorded; remove the server "
            "from the template, or use an image of this project"
        )
    return getattr(server, "tenant_id", None)


def _check_installation(wanted: WantedRelation) -> None:
    configured = option("installation_uuid")
    known = None if configured is None else validation.installation_uuid(configured)
    if wanted.instance.installation_uuid != known:
        raise RecordingRefused(
            f"Heat cannot look up the server {wanted.instance.instance_id} in the installation "
            f"{wanted.instance.installation_uuid}; for a user without a recording role it records "
            f"only servers of {known or 'no installation'} (installation_uuid in [{GROUP}] of "
            "heat.conf); nothing was recorded"
        )


def _server(nova: Any, id: str) -> Any:
    refused = RecordingRefused(
        f"Nova shows the stack's user no server {id}, so nothing was recorded; check the ID, and "
        "that the server belongs to the stack's project"
    )
    if not validation.is_uuid(id):
        raise refused  # another path of Nova's API, such as "detail"
    try:
        server = nova.servers.get(id)
    except (nova_errors.NotFound, nova_errors.Forbidden) as error:
        raise refused from error
    if server.id != id:
        raise refused  # Nova's database may compare IDs without case
    return server


def _check_boot(server: Any, image: Mapping[str, Any] | None) -> None:
    # an empty string if the server is booted from a volume
    reference = getattr(server, "image", None)
    boot_image = reference.get("id") if isinstance(reference, Mapping) else None
    if image is None or boot_image != image["id"]:
        raise RecordingRefused(
            f"according to Nova the server {server.id} was booted from "
            f"{f'the image {boot_image}' if boot_image else 'no image'}, so nothing was recorded; "
            "use that image, or another kind than boot"
        )
