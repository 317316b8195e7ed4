"""The backup policies in the metadata of servers.

Users who may write the metadata of a server decide which of its backups are deleted. So a policy
applies only to images of the project of the server, and an invalid policy applies to no image.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from related_images import validation
from related_images.client.backups import stored_policy
from related_images.client.backups.prune import Choose
from related_images.client.backups.retention import Policy
from related_images.client.backups.stored_policy import StoredPolicy
from related_images.client.errors import InstallationAmbiguous, PolicyInvalid
from related_images.model import Instance

NO_POLICY: Final = "its server has no policy"
INVALID: Final = "its server has an invalid policy"
NO_RULE: Final = "the policy of its server has no retention rule"


@dataclass(frozen=True)
class ServerPolicies:
    """The policy of a server.

    :ivar created_at: creation time of the server
    :ivar policy: the policy; ``None`` if it is invalid
    :ivar fault: why the policy is invalid
    """

    server_id: str
    project_id: str
    created_at: datetime
    policy: StoredPolicy | None
    fault: str = ""


def policies_of_server(
    server_id: str, project_id: str, created_at: str, metadata: Mapping[str, str]
) -> ServerPolicies | None:
    """Return the policy in the metadata of a server; ``None`` if it has no policy.

    :param server_id: ID of the server
    :param project_id: ID of the project of the server
    :param created_at: creation time of the server, in ISO 8601
    :param metadata: the metadata of the server, as Nova shows it
    :raises ParameterMalformed: if the time is malformed
    """
    text = metadata.get(stored_policy.METADATA_KEY)
    if text is None:
        return None
    made_at = validation.parse_time("created_at", created_at)
    known = ServerPolicies(server_id, project_id, made_at, None)
    try:
        return replace(known, policy=stored_policy.read(text))
    except PolicyInvalid as error:
        return replace(known, fault=str(error))


def stored(known: Mapping[str, ServerPolicies]) -> Choose:
    """Return the ``rules`` for :func:`~related_images.client.backups.decide`.

    :param known: the policies by server ID
    """

    def choose(instance: Instance) -> Policy | str:
        found = known.get(instance.instance_id)
        if found is None:
            return NO_POLICY
        if found.policy is None:
            return INVALID
        if found.policy.retention.is_empty:
            return NO_RULE
        return replace(found.policy.retention, project_id=found.project_id)

    return choose


def check_installation(instances: Iterable[Instance], known: Container[str]) -> None:
    """Check that the servers of a compute service belong to one installation.

    :param instances: the recorded servers
    :param known: the IDs of servers of the compute service
    :raises InstallationAmbiguous: if they are recorded in more than one installation
    """
    found = {each.installation_uuid for each in instances if each.instance_id in known}
    if len(found) > 1:
        raise InstallationAmbiguous(
            "the servers of this compute service are recorded in several installations: "
            f"{', '.join(sorted(found))}; set the installation (--installation)"
        )


def faults(known: Mapping[str, ServerPolicies]) -> Iterator[str]:
    """Yield a message for each invalid policy.

    :param known: the policies by server ID
    """
    for server in known.values():
        if server.policy is None:
            yield f"the policy of server {server.server_id} is not applied: {server.fault}"
