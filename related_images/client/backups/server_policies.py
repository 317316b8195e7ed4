"""The backup policies that servers carry, and what they say for the backups of each.

Whoever may write a server's metadata decides there which backups go: so a policy is only ever
applied to images of the server's own project, and what is not understood applies to none.
"""

from collections.abc import Iterable, Iterator, Mapping
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

NO_POLICY: Final = "its server carries no policy"
NOT_UNDERSTOOD: Final = "its server carries a policy that is not understood"
NO_RULE: Final = "the policy of its server has no rule by which any may go"


@dataclass(frozen=True)
class ServerPolicies:
    """A policy and the server that carries it; without ``policy``, ``fault`` says why not."""

    server_id: str
    project_id: str
    created_at: datetime
    policy: StoredPolicy | None
    fault: str = ""


def policies_of_server(
    server_id: str, project_id: str, created_at: str, metadata: Mapping[str, str]
) -> ServerPolicies | None:
    """The policy of a server as Nova shows it; ``None`` if it carries none."""
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
    """For each instance the policy that its server carries."""

    def choose(instance: Instance) -> Policy | str:
        found = known.get(instance.instance_id)
        if found is None:
            return NO_POLICY
        if found.policy is None:
            return NOT_UNDERSTOOD
        if found.policy.retention.is_empty:
            return NO_RULE
        return replace(found.policy.retention, project_id=found.project_id)

    return choose


def check_installation(instances: Iterable[Instance], known: Mapping[str, ServerPolicies]) -> None:
    """Refuse to guess which of several installations the compute service is.

    :raises InstallationAmbiguous: if instances with the ids of its servers are of more than one
    """
    found = {it.installation_uuid for it in instances if it.instance_id in known}
    if len(found) > 1:
        raise InstallationAmbiguous(
            "servers of the compute service that is asked are known in several installations: "
            f"{', '.join(sorted(found))}; give the installation (--installation)"
        )


def faults(known: Mapping[str, ServerPolicies]) -> Iterator[str]:
    """What is wrong with those that are not understood."""
    for it in known.values():
        if it.policy is None:
            yield f"the policy that server {it.server_id} carries applies to nothing: {it.fault}"
