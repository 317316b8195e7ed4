"""``OS::RelatedImages::BackupPolicy``: retention and maximum age of the backups of servers."""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from heat.common import exception
from heat.engine import attributes, constraints, function, properties, resource
from heat.engine.hot.functions import GetResource

from related_images.client import PolicyInvalid
from related_images.client.backups import stored_policy
from related_images.client.backups.retention import COUNTED
from related_images.client.backups.stored_policy import METADATA_KEY, METADATA_WRITER
from related_images.client.errors import ClientError
from related_images.integrations.heat.property_values import is_known

Values = Mapping[str, Any]
Schema = properties.Schema

SERVERS: Final = "servers"
SERVER_TYPE: Final = "OS::Nova::Server"
POLICY_TYPE: Final = "OS::RelatedImages::BackupPolicy"


class PolicyTaken(ClientError):
    """A server has a backup policy that another resource or a user set."""

    code = "heat.policy-taken"
    title = "The server has another backup policy"


def _text(description: str) -> Any:
    return Schema(Schema.STRING, description, update_allowed=True)


def _texts(description: str, *constraint: Any, **more: Any) -> Any:
    each = Schema(Schema.STRING, constraints=constraint)
    return Schema(Schema.LIST, description, schema=each, update_allowed=True, **more)


_RULES: Final = {
    **{
        f"keep_{rule}": _text(f"Number of {rule} backups to keep, or unlimited.")
        for rule in COUNTED
    },
    stored_policy.WITHIN: _text(
        "Keep the backups created within this time before the newest one, such as 7d."
    ),
    stored_policy.LABELS: _texts("Keep every backup with one of these labels."),
    stored_policy.TIMEZONE: _text("Time zone of the hours and days; default: UTC."),
    stored_policy.OLDER_THAN: _text("Maximum age of the newest backup, such as 26h."),
    stored_policy.CRITICAL: _text("Age of the newest backup that is critical, such as 50h."),
}


PROPERTIES_SCHEMA: Final = {
    SERVERS: _texts(
        "The servers that get the policy; default: all servers of the stack.",
        constraints.CustomConstraint("nova.server"),
        constraints=[constraints.Length(min=1)],
    ),
    **_RULES,
}
ATTRIBUTES_SCHEMA: Final = {
    SERVERS: attributes.Schema(
        "The servers that have the policy.",
        cache_mode=attributes.Schema.CACHE_NONE,
        type=attributes.Schema.LIST,
    )
}


class BackupPolicy(resource.Resource):  # type: ignore[misc]
    """Retention rules and a maximum age, which the resource stores in the metadata of servers.

    ``openstack server backup overdue`` and ``prune`` use them with ``--policy stored``. Each
    update of the stack sets the policy on all its servers, new ones included.
    """

    default_client_name = "nova"
    always_replace_on_check_failed = False
    properties_schema = PROPERTIES_SCHEMA
    attributes_schema = ATTRIBUTES_SCHEMA

    def add_dependencies(self, deps: Any) -> None:
        """Add the servers of the stack, if the template lists none.

        :param deps: Heat's graph of dependencies
        """
        super().add_dependencies(deps)
        if self.properties.data.get(SERVERS) is None:
            for name in self._names_of_servers():
                deps += (self, self.stack[name])

    def validate(self) -> None:
        """Check the template before anything is created.

        :raises StackValidationFailed: if the policy is invalid, has no server, or shares a server
            with another policy of the stack
        """
        super().validate()
        raw = self.properties.data
        values = {name: self.properties[name] for name in _RULES}
        if not any(_is_unknown(value, raw.get(name)) for name, value in values.items()):
            _policy_text(values)
        if raw.get(SERVERS) is None and not list(self._names_of_servers()):
            raise exception.StackValidationFailed(
                message="the stack has no server for the backup policy; set servers"
            )
        self._check_other_policies()

    def _check_other_policies(self) -> None:
        """Raise if another policy of the stack is for the same server, which can have only one."""
        own = self._servers_of(self.properties.data.get(SERVERS), self.properties[SERVERS])
        defn = self.stack.defn
        for name in sorted(defn.enabled_rsrc_names()):
            definition = defn.resource_definition(name)
            if name == self.name or self._type_of(name) != POLICY_TYPE:
                continue
            other = definition.properties(PROPERTIES_SCHEMA, self.context)
            both = own & self._servers_of(other.data.get(SERVERS), other[SERVERS])
            if both:
                raise exception.StackValidationFailed(
                    message=f"the backup policies {' and '.join(sorted((self.name, name)))} are "
                    f"both for the server {min(both)}, which can have only one; set different "
                    "servers for each"
                )

    def _servers_of(self, raw: Any, known: list[str] | None) -> set[str]:
        """Return the servers of a policy: the names of those in the stack, the IDs of others."""
        if raw is None:
            return set(self._names_of_servers())
        ids = {self.stack.defn[name].FnGetRefId(): name for name in self._names_of_servers()}
        references = (
            [one for one in raw if isinstance(one, GetResource)] if isinstance(raw, list) else []
        )
        resources = {function.resolve(reference.args) for reference in references}
        return resources | {ids.get(id, id) for id in known or () if id}

    def handle_create(self) -> None:
        """Set the policy on its servers.

        :raises PolicyTaken: if a server has another policy
        :raises StackValidationFailed: if the policy is invalid
        """
        text = _policy_text(self.properties)
        self.resource_id_set(str(uuid.uuid4()))
        self._apply(self._wanted_servers(self.properties), text)

    def handle_update(self, json_snippet: Any, tmpl_diff: Any, prop_diff: Values) -> None:
        """Set the policy on its servers, and remove it from others.

        :param json_snippet: the new definition of the resource
        :param tmpl_diff: the changed parts of the definition
        :param prop_diff: the changed properties
        :raises PolicyTaken: if a server has another policy
        :raises StackValidationFailed: if the policy is invalid
        """
        after = {**dict(self.properties), **prop_diff}
        self._apply(self._wanted_servers(after), _policy_text(after))

    def handle_delete(self) -> None:
        """Remove the policy from its servers."""
        for server in self._recorded_servers():
            self._remove(server)

    def handle_check(self) -> None:
        """Check that all servers have the policy.

        :raises heat.common.exception.Error: if a server does not have it
        """
        text, servers = _policy_text(self.properties), self._recorded_servers()
        missing = [server for server in servers if not self._is_set(server, text)]
        if missing:
            raise exception.Error(
                f"the backup policy is missing on the servers {', '.join(missing)}; an update of "
                "the stack sets it again"
            )

    def needs_replace_failed(self) -> bool:
        """Return True to replace a failed resource: unless servers may have its policy."""
        return self.resource_id is None

    def _needs_update(self, *args: Any, **kwargs: Any) -> bool:
        # even if this resource is unchanged, servers may be new or may have lost the policy
        super()._needs_update(*args, **kwargs)
        return True

    def _resolve_attribute(self, name: str) -> Any:
        return self._recorded_servers()

    def _wanted_servers(self, values: Values) -> list[str]:
        """Return the IDs of the servers in the template."""
        if values[SERVERS] is not None:
            return list(dict.fromkeys(values[SERVERS]))
        return [self.stack.defn[name].FnGetRefId() for name in self._names_of_servers()]

    def _names_of_servers(self) -> Iterator[str]:
        for name in sorted(self.stack.defn.enabled_rsrc_names()):
            if self._type_of(name) == SERVER_TYPE:
                yield name

    def _type_of(self, name: str) -> str:
        """Return the type of a resource, after the mapping of types in the environment."""
        defn = self.stack.defn
        kind = defn.resource_definition(name).resource_type
        return str(defn.env.get_resource_info(kind, resource_name=name).name)

    def _apply(self, servers: list[str], text: str) -> None:
        others = [server for server in self._recorded_servers() if server not in servers]
        # recorded first, so that a deletion after a failure removes the policy from all of them
        self.data_set(SERVERS, json.dumps([*others, *servers]))
        for server in servers:
            self._set(server, text)
        for server in others:
            self._remove(server)
        self.data_set(SERVERS, json.dumps(servers))

    def _set(self, server: str, text: str) -> None:
        metadata = self._metadata(server)
        if METADATA_KEY in metadata and metadata.get(METADATA_WRITER) != self._writer:
            raise PolicyTaken(
                f"the server {server} already has a backup policy, which this resource did not "
                f"set; remove {METADATA_KEY} from its metadata first, or remove the server from "
                "the template"
            )
        items = {METADATA_KEY: text, METADATA_WRITER: self._writer}
        if not items.items() <= metadata.items():
            self.client().servers.set_meta(server, items)

    def _remove(self, server: str) -> None:
        with self.client_plugin().ignore_not_found:
            if self._metadata(server).get(METADATA_WRITER) == self._writer:
                self.client().servers.delete_meta(server, [METADATA_KEY, METADATA_WRITER])

    def _is_set(self, server: str, text: str) -> bool:
        with self.client_plugin().ignore_not_found:
            return bool(self._metadata(server).get(METADATA_KEY) == text)
        return True  # a deleted server needs no policy

    def _metadata(self, server: str) -> dict[str, str]:
        metadata: dict[str, str] = self.client().servers.get(server).metadata
        return metadata

    def _recorded_servers(self) -> list[str]:
        """Return the servers that have the policy, or may have it after a failure."""
        servers: list[str] = json.loads(self.data().get(SERVERS, "[]"))
        return servers

    @property
    def _writer(self) -> str:
        return f"{self.stack.id}/{self.resource_id}"


def _policy_text(values: Values) -> str:
    """Return the policy as the metadata of servers has it.

    :raises StackValidationFailed: if it is invalid
    """
    try:
        return stored_policy.write({name: values[name] for name in _RULES})
    except PolicyInvalid as error:
        raise exception.StackValidationFailed(message=str(error)) from error


def _is_unknown(value: Any, raw: Any) -> bool:
    """Return True if a value is empty because it comes from a resource not created yet."""
    is_missing = not value or (isinstance(value, list) and not all(value))
    return is_missing and not is_known(raw)
