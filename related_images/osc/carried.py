"""The backup policies that servers carry, as the compute service shows them to the caller.

Whoever may write a server's metadata decides there which backups go: so a policy is only ever
applied to images of the server's own project, and what is not understood applies to none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import NotFoundException, SDKException
from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client import Instance, policies
from related_images.client.errors import PolicyInvalid
from related_images.client.policies import StoredPolicy
from related_images.client.retention import Policy

STORED: Final = "stored"

NO_POLICY: Final = "its server carries no policy"
NOT_UNDERSTOOD: Final = "its server carries a policy that is not understood"
NO_RULE: Final = "the policy of its server has no rule by which any may go"

Choose = Callable[[Instance], Policy | str]
"""The policy for the backups of an instance, or why all of them stay."""


@dataclass(frozen=True)
class Scope:
    """Whose servers are asked for: one, those of a project, of all, or of the caller's own."""

    server_id: str | None = None
    project_id: str | None = None
    all_projects: bool = False


@dataclass(frozen=True)
class Carried:
    """A policy and the server that carries it; without ``policy``, ``fault`` says why not."""

    server_id: str
    project_id: str
    created_at: datetime
    policy: StoredPolicy | None
    fault: str = ""


def carried(manager: Any, scope: Scope) -> dict[str, Carried]:
    """The policies by the ids of the servers that carry them.

    :raises CommandError: if the compute service does not tell
    """
    try:
        found = [_carried(server) for server in _servers(manager, scope)]
    except (SDKException, ClientException) as error:
        raise CommandError(
            f"the compute service does not tell which policies servers carry: {error}; check that "
            "this account may ask it for these servers, or give rules on the command line"
        ) from error
    return {it.server_id: it for it in found if it is not None}


def _servers(manager: Any, scope: Scope) -> Iterable[Any]:
    compute = manager.sdk_connection.compute
    if scope.server_id is not None:
        try:
            return [compute.get_server(scope.server_id)]
        except NotFoundException:
            return []
    own = manager.auth_ref.project_id if manager.auth_ref else None
    if scope.all_projects or scope.project_id not in (None, own):
        others = {"project_id": scope.project_id} if scope.project_id else {}
        return compute.servers(details=True, all_projects=True, **others)  # type: ignore[no-any-return]
    return compute.servers(details=True)  # type: ignore[no-any-return]


def _carried(server: Any) -> Carried | None:
    text = (server.metadata or {}).get(policies.METADATA_KEY)
    if text is None:
        return None
    created_at = validation.parse_time("created_at", server.created_at)
    known = Carried(server.id, server.project_id, created_at, None)
    try:
        return replace(known, policy=policies.read(text))
    except PolicyInvalid as error:
        return replace(known, fault=str(error))


def stored(known: Mapping[str, Carried]) -> Choose:
    """For each instance the policy that its server carries."""

    def choose(instance: Instance) -> Policy | str:
        found = known.get(instance.instance.instance_id)
        if found is None:
            return NO_POLICY
        if found.policy is None:
            return NOT_UNDERSTOOD
        if found.policy.retention.is_empty:
            return NO_RULE
        return replace(found.policy.retention, project_id=found.project_id)

    return choose


def must_be_of_one_installation(
    instances: Iterable[Instance], known: Mapping[str, Carried]
) -> None:
    """Refuse to guess which of several installations the compute service is.

    :raises CommandError: if instances with the ids of its servers are of more than one
    """
    found = {it.instance.installation_uuid for it in instances if it.instance.instance_id in known}
    if len(found) > 1:
        raise CommandError(
            "servers of the compute service that is asked are known in several installations: "
            f"{', '.join(sorted(found))}; give --installation"
        )


def faults(known: Mapping[str, Carried]) -> Iterator[str]:
    """What is wrong with those that are not understood."""
    for it in known.values():
        if it.policy is None:
            yield f"the policy that server {it.server_id} carries applies to nothing: {it.fault}"
