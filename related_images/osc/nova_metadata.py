"""Asks the compute service which backup policies its servers carry."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import NotFoundException, SDKException
from osc_lib.exceptions import CommandError

from related_images.client.backups.server_policies import ServerPolicies, policies_of_server
from related_images.osc.compute import Compute

STORED: Final = "stored"


@dataclass(frozen=True)
class Scope:
    """Whose servers are asked for: one, those of a project, of all, or of the caller's own."""

    server_id: str | None = None
    project_id: str | None = None
    all_projects: bool = False


def carried(manager: Any, scope: Scope) -> dict[str, ServerPolicies]:
    """The policies by the ids of the servers that carry them.

    :raises CommandError: if there is no compute service, or it does not tell
    """
    try:
        if not Compute(manager).exists:
            raise CommandError(
                "this cloud has no compute service (Nova), in which servers carry their policies; "
                "give rules on the command line in place of --policy stored, or choose another "
                "cloud with --os-cloud"
            )
        found = [
            policies_of_server(it.id, it.project_id, it.created_at, it.metadata or {})
            for it in _servers(manager, scope)
        ]
    except (SDKException, ClientException) as error:
        raise CommandError(
            f"the compute service does not tell which policies servers carry: {error}; check that "
            "this account may ask it for these servers, or give rules on the command line"
        ) from error
    return {it.server_id: it for it in found if it is not None}


def _servers(manager: Any, scope: Scope) -> Iterable[Any]:
    nova = manager.sdk_connection.compute
    if scope.server_id is not None:
        try:
            return [nova.get_server(scope.server_id)]
        except NotFoundException:
            return []
    own = manager.auth_ref.project_id if manager.auth_ref else None
    if scope.all_projects or scope.project_id not in (None, own):
        others = {"project_id": scope.project_id} if scope.project_id else {}
        return nova.servers(details=True, all_projects=True, **others)  # type: ignore[no-any-return]
    return nova.servers(details=True)  # type: ignore[no-any-return]
