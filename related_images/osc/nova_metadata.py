"""Read the backup policies of servers from their metadata in Nova."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import NotFoundException, SDKException
from osc_lib.exceptions import CommandError

from related_images.client.backups.server_policies import ServerPolicies, policies_of_server
from related_images.osc.compute import Compute

STORED: Final = "stored"
"""The value of ``--policy``."""


@dataclass(frozen=True)
class ServerScope:
    """One server, or the servers of a project, of all projects, or of the caller's project."""

    server_id: str | None = None
    project_id: str | None = None
    all_projects: bool = False


def stored_policies(manager: Any, scope: ServerScope) -> dict[str, ServerPolicies]:
    """Return the policies of servers by server ID; servers without a policy are left out.

    :param manager: the ``ClientManager`` of python-openstackclient
    :raises CommandError: if there is no compute service, or it fails or refuses the account
    """
    try:
        if not Compute(manager).exists:
            raise CommandError(
                "this cloud has no compute service (Nova), and policies are in the metadata of its "
                "servers; give rules on the command line instead of --policy stored, or choose "
                "another cloud with --os-cloud"
            )
        policies = [
            policies_of_server(
                server.id, server.project_id, server.created_at, server.metadata or {}
            )
            for server in _servers(manager, scope)
        ]
    except (SDKException, ClientException) as error:
        raise CommandError(
            f"the policies of servers cannot be read from the compute service: {error}; check that "
            "this account may list these servers, or give rules on the command line"
        ) from error
    return {policy.server_id: policy for policy in policies if policy is not None}


def _servers(manager: Any, scope: ServerScope) -> Iterable[Any]:
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
