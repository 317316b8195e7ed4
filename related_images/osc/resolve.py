"""Finds the IDs of the images, servers and projects that people name."""

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
from related_images.osc.compute import REFUSED, Compute
from related_images.protocol import paths

CANDIDATES: Final = 10
"""So many are named when there are several."""

IDENTITY: Final = {"service_type": "identity", "version": (3,)}
_PROJECT_ID: Final = re.compile("[0-9a-f]{32}")


def image(relations: RelationsClient, text: str) -> str:
    """The id of the image that ``text`` is the id or the name of.

    An ID is not looked up: relations of deleted images are kept.

    :raises NotInstanceAware: before anything else is asked
    :raises CommandError: if there is none of that name, or more than one
    """
    relations.info()
    if validation.is_uuid(text):
        return text
    pages = relations.glance.pages(paths.IMAGES, [("name", f"eq:{text}")])
    # some databases compare without regard to case
    named = (
        image_id
        for page in pages
        for image_id in page.read(
            lambda body: [i["id"] for i in body["images"] if i["name"] == text]
        )
    )
    return _only(
        list(itertools.islice(named, CANDIDATES)),
        f"image with the name or ID {validation.shown(text)}",
        "give the ID",
    )


def server(manager: Any, installation: str | None, text: str) -> InstanceRef:
    """The server with this name or ID, of the ``installation`` or of the only one that knows it.

    :raises NotInstanceAware: before anything else is asked
    :raises CommandError: as :func:`server_id` and :func:`recorded`
    """
    return recorded(manager.related_images.relations, installation, server_id(manager, text))


def server_id(manager: Any, text: str) -> str:
    """The ID of the server that ``text`` is the name or the ID of.

    A UUID is not looked up: relations of servers that are gone are kept. Anything else is looked
    for among the names that Nova has, as Nova's own commands do. If there is no server of that
    name, or no Nova, ``text`` is the recorded ID.

    :raises NotInstanceAware: before anything else is asked
    :raises CommandError: if several servers have the name, if Nova fails, or if ``text`` is neither
        a name that Nova knows nor an ID
    """
    manager.related_images.relations.info()
    if validation.is_uuid(text):
        return text
    try:
        found = list(itertools.islice(Compute(manager).named(text), CANDIDATES))
    except CommandError as error:
        raise CommandError(
            f"it is not known which server is named {validation.shown(text)}: {error}; try again "
            "later, or give the server's ID"
        ) from error
    if found:
        return _only(found, f"server named {validation.shown(text)}", "give the ID")
    try:
        return validation.instance_id(text)
    except BadInput as error:
        raise CommandError(
            f"the compute service shows this account no server named {validation.shown(text)}, and "
            f"an ID has 1 to {validation.INSTANCE_ID_LENGTH} of the characters "
            f"{validation.LETTERS}; check the name, or give the server's ID"
        ) from error


def recorded(relations: RelationsClient, installation: str | None, instance_id: str) -> InstanceRef:
    """The server with this ID, of the ``installation`` or of the only one that knows it.

    :raises NotInstanceAware: before anything else is asked
    :raises CommandError: if no installation knows it, or more than one does
    """
    if installation is not None:
        relations.info()
        return InstanceRef(installation, instance_id)
    known = itertools.islice(relations.instances(instance_id=instance_id), CANDIDATES)
    found = {row.instance.installation_uuid: row.instance for row in known}
    what = f"installation that knows a server {instance_id}"
    return found[_only(list(found), what, "give --installation")]


def project(manager: Any, text: str | None) -> str | None:
    """The id of the project that ``text`` is the id or the name of.

    Where there is no identity service it is taken for the id. Where that does not let the caller
    look, only what has the form of an id is: a name would find nothing, as if all were well.

    :raises CommandError: if there is none, or more than one of that name, or it cannot be known
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
    return _only(ids, f"project with the name or ID {validation.shown(text)}", "give the ID")


def project_in_scope(manager: Any, given: argparse.Namespace) -> str | None:
    """Which project's instances are asked for: by default the caller's own, where that is known."""
    if given.all_projects or given.project is not None:
        return project(manager, given.project)
    return manager.auth_ref.project_id if manager.auth_ref else None


def _project_id(text: str) -> str:
    if validation.is_uuid(text) or _PROJECT_ID.fullmatch(text):
        return text
    raise CommandError(
        f"the identity service does not let this account look for the project "
        f"{validation.shown(text)}; "
        "give the project's ID"
    )


def _ask_identity(manager: Any, path: str, **query: str) -> Mapping[str, Any] | None:
    """What the identity service says; ``None`` where it refuses to.

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
            f"the identity service answered {response.status_code} to a question about projects; "
            "try again later"
        )
    found: Mapping[str, Any] = response.json()
    return found


def _only(found: list[str], what: str, remedy: str) -> str:
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"there is more than one {what}: {', '.join(found)}; {remedy}")
    raise CommandError(f"there is no {what} that this account sees; check it, or {remedy}")
