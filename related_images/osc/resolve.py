"""Find the IDs of images, servers and projects by name."""

import argparse
import itertools
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client import InstanceRef, RelationsClient
from related_images.errors import BadInput
from related_images.model import SERVER
from related_images.osc.compute import REFUSED, Compute
from related_images.protocol import paths

CANDIDATES: Final = 10
"""The number of objects in the message that a name is ambiguous."""

IDENTITY: Final = {"service_type": "identity", "version": (3,)}
_PROJECT_ID: Final = re.compile("[0-9a-f]{32}")


def image(relations: RelationsClient, text: str) -> str:
    """Return the ID of an image.

    An ID is not looked up, since relations of deleted images are kept.

    :param text: the ID or the name of the image
    :raises NotInstanceAware: if Glance does not have the filter; no other request is sent
    :raises CommandError: if there is no image with this name, or more than one
    """
    relations.info()
    if validation.is_uuid(text):
        return text
    pages = relations.glance.pages(paths.IMAGES, [("name", f"eq:{text}")])
    # some databases ignore the case
    named = (
        image_id
        for page in pages
        for image_id in page.read(
            lambda body: [i["id"] for i in body["images"] if i["name"] == text]
        )
    )
    return _single(
        list(itertools.islice(named, CANDIDATES)),
        f"image with the name or ID {validation.shown(text)}",
        "give the ID",
    )


def server(manager: Any, installation: str | None, text: str) -> InstanceRef:
    """Return the server with this name or ID.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param installation: a UUID; ``None`` for the only installation that has the server
    :param text: the name or the ID
    :raises NotInstanceAware: if Glance does not have the filter; no other request is sent
    :raises CommandError: see :func:`server_id` and :func:`recorded_resource`
    """
    return recorded_resource(
        manager.related_images.relations, installation, server_id(manager, text)
    )


def server_id(manager: Any, text: str) -> str:
    """Return the ID of a server.

    A UUID is not looked up, since relations of deleted servers are kept. Any other text is the name
    of a server in Nova. If Nova has no server with this name or the cloud has no Nova, it is an ID.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param text: the name or the ID
    :raises NotInstanceAware: if Glance does not have the filter; no other request is sent
    :raises CommandError: if several servers have the name, if Nova fails, or if ``text`` is neither
        the name of a server in Nova nor an ID
    """
    manager.related_images.relations.info()
    if validation.is_uuid(text):
        return text
    try:
        found = list(itertools.islice(Compute(manager).named(text), CANDIDATES))
    except CommandError as error:
        raise CommandError(
            f"the server named {validation.shown(text)} cannot be looked up: {error}; try again "
            "later, or give the server's ID"
        ) from error
    if found:
        return _single(found, f"server named {validation.shown(text)}", "give the ID")
    try:
        return validation.instance_id(text)
    except BadInput as error:
        raise CommandError(
            f"the compute service shows this account no server named {validation.shown(text)}, and "
            f"an ID has 1 to {validation.INSTANCE_ID_LENGTH} of the characters "
            f"{validation.LETTERS}; check the name, or give the server's ID"
        ) from error


def resource(manager: Any, installation: str | None, text: str, resource_type: str) -> InstanceRef:
    """Return the server with this name or ID, or the resource of another type with this ID.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param installation: a UUID; ``None`` for the only installation that has the resource
    :raises NotInstanceAware: if Glance does not have the filter; no other request is sent
    :raises BadInput: if ``text`` is not an ID, for another type than ``server``
    :raises CommandError: see :func:`server_id` and :func:`recorded_resource`
    """
    if resource_type == SERVER:
        return server(manager, installation, text)
    relations = manager.related_images.relations
    return recorded_resource(relations, installation, validation.instance_id(text), resource_type)


def recorded_resource(
    relations: RelationsClient,
    installation: str | None,
    instance_id: str,
    resource_type: str = SERVER,
) -> InstanceRef:
    """Return the resource with this ID.

    :param installation: a UUID; ``None`` for the only installation that has the resource
    :raises NotInstanceAware: if Glance does not have the filter; no other request is sent
    :raises CommandError: if no installation has the resource, or more than one
    """
    if installation is not None:
        relations.info()
        return InstanceRef(installation, instance_id, resource_type)
    instances = relations.instances(instance_id=instance_id, resource_type=resource_type)
    found = {
        row.instance.installation_uuid: row.instance
        for row in itertools.islice(instances, CANDIDATES)
    }
    what = f"installation with a {resource_type} {instance_id}"
    return found[_single(list(found), what, "give --installation")]


def project(manager: Any, text: str | None) -> str | None:
    """Return the ID of a project.

    Without an identity service, ``text`` is the ID. If the identity service refuses to look it up,
    ``text`` must have the form of an ID: as a filter, a name would match nothing.

    :param manager: the ``ClientManager`` of python-openstackclient
    :param text: the ID or the name of the project; ``None`` for no project
    :raises CommandError: if no project or several have the name, or if it cannot be looked up
    """
    token = manager.auth_ref
    if text is None or token is None:
        return text
    if text in (token.project_id, token.project_name):
        return str(token.project_id)
    by_id = _ask_identity(manager, f"/projects/{quote(text, safe='')}")
    if by_id is not None and "project" in by_id:
        return str(by_id["project"]["id"])
    by_name = _ask_identity(manager, "/projects", name=text)
    if by_name is None:
        return _project_id(text)
    ids = [found["id"] for found in by_name["projects"]]
    return _single(ids, f"project with the name or ID {validation.shown(text)}", "give the ID")


def project_in_scope(manager: Any, args: argparse.Namespace) -> str | None:
    """Return the project ID of ``--project``, ``None`` for all, by default the caller's project.

    :raises CommandError: see :func:`project`
    """
    if args.all_projects or args.project is not None:
        return project(manager, args.project)
    return manager.auth_ref.project_id if manager.auth_ref else None


def _project_id(text: str) -> str:
    if validation.is_uuid(text) or _PROJECT_ID.fullmatch(text):
        return text
    raise CommandError(
        "the identity service does not let this account look up the project "
        f"{validation.shown(text)}; give the project's ID"
    )


def _ask_identity(manager: Any, path: str, **query: str) -> Mapping[str, Any] | None:
    """Return the response of the identity service; ``None`` if it refuses the account.

    :raises CommandError: if it fails
    """
    response = manager.session.get(
        path,
        params=query,
        endpoint_filter={
            **IDENTITY,
            "region_name": manager.region_name,
            "interface": manager.interface,
        },
        raise_exc=False,
    )
    if response.status_code in REFUSED:
        return None
    if response.status_code != 200:
        raise CommandError(
            f"the identity service answered {response.status_code} to a request for projects; "
            "try again later"
        )
    found: Mapping[str, Any] = response.json()
    return found


def _single(found: list[str], what: str, remedy: str) -> str:
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"there is more than one {what}: {', '.join(found)}; {remedy}")
    raise CommandError(f"this account sees no {what}; check it, or {remedy}")
