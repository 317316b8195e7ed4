"""What Heat vouches for with its own identity: what Nova shows the stack's user, and no more."""

from collections.abc import Mapping
from typing import Any

from novaclient import exceptions as nova_errors

from related_images import model, validation
from related_images.integrations.heat.heat_credentials import GROUP, RecordingRefused, option
from related_images.integrations.heat.validation import WantedRelation


def project_of_instance(
    nova: Any, wanted: WantedRelation, image: Mapping[str, Any] | None, project: str
) -> str | None:
    """Whose the instance of the relation is, if the stack's user may have it recorded.

    :param nova: the user's client
    :param image: as Glance shows it to the user; ``None`` if it is still to be made
    :param project: the stack's
    :raises RecordingRefused: if the user may not
    """
    _check_installation(wanted)
    server = _server(nova, wanted.instance.instance_id)
    if wanted.kind == model.BOOT:
        _check_start(server, image)
    elif image is not None and image.get("owner") != project:
        raise RecordingRefused(
            f"the image {image['id']} belongs to another project, so Heat does not record it as "
            f"a {wanted.kind} of the server {server.id}; nothing was recorded; leave the server "
            "out, or describe an image of this project"
        )
    return getattr(server, "tenant_id", None)


def _check_installation(wanted: WantedRelation) -> None:
    configured = option("installation_uuid")
    known = None if configured is None else validation.installation_uuid(configured)
    if wanted.instance.installation_uuid != known:
        raise RecordingRefused(
            f"Heat cannot ask the installation {wanted.instance.installation_uuid} whether it has "
            f"the instance {wanted.instance.instance_id}, and records only servers of "
            f"{known or 'no installation'} (installation_uuid under [{GROUP}] of heat.conf) for a "
            "user without a recording role; nothing was recorded"
        )


def _server(nova: Any, id: str) -> Any:
    refused = RecordingRefused(
        f"Nova shows the stack's user no server {id}, so nothing was recorded; check the id, and "
        "that the server belongs to the stack's project"
    )
    if not validation.is_uuid(id):
        raise refused  # else it could be another path of Nova's
    try:
        server = nova.servers.get(id)
    except (nova_errors.NotFound, nova_errors.Forbidden) as error:
        raise refused from error
    if server.id != id:
        raise refused  # Nova's database may take another spelling for the same
    return server


def _check_start(server: Any, image: Mapping[str, Any] | None) -> None:
    # a server that was started from a volume has an empty text there
    shown = getattr(server, "image", None)
    started_from = shown.get("id") if isinstance(shown, Mapping) else None
    if image is None or started_from != image["id"]:
        raise RecordingRefused(
            f"Nova says that the server {server.id} was started from "
            f"{f'the image {started_from}' if started_from else 'no image'}, so nothing was "
            "recorded; name that image, or another kind than boot"
        )
