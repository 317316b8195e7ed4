"""``OS::RelatedImages::BackupPolicy``: how servers' backups are kept, and how old they may be."""

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
    """A server has a backup policy that somebody else wrote."""

    code = "heat.policy-taken"
    title = "The server carries another backup policy"


def _text(description: str) -> Any:
    return Schema(Schema.STRING, description, update_allowed=True)


def _texts(description: str, *constraint: Any, **more: Any) -> Any:
    each = Schema(Schema.STRING, constraints=constraint)
    return Schema(Schema.LIST, description, schema=each, update_allowed=True, **more)


_RULES: Final = {
    **{
        f"keep_{rule}": _text(f"How many {rule} backups are kept, or unlimited.")
        for rule in COUNTED
    },
    stored_policy.WITHIN: _text(
        "Keep what was made within this span before the newest, such as 7d."
    ),
    stored_policy.LABELS: _texts("Keep every backup with one of these labels."),
    stored_policy.TIMEZONE: _text("Where the hours and days are those of; UTC if none is given."),
    stored_policy.OLDER_THAN: _text("How old the newest backup may be, such as 26h."),
    stored_policy.CRITICAL: _text("From which age on it is critical."),
}


PROPERTIES_SCHEMA: Final = {
    SERVERS: _texts(
        "The servers that it is for; all of the stack if none are given.",
        constraints.CustomConstraint("nova.server"),
        constraints=[constraints.Length(min=1)],
    ),
    **_RULES,
}
ATTRIBUTES_SCHEMA: Final = {
    SERVERS: attributes.Schema(
        "The servers that carry it.",
        cache_mode=attributes.Schema.CACHE_NONE,
        type=attributes.Schema.LIST,
    )
}


class BackupPolicy(resource.Resource):  # type: ignore[misc]
    """Retention rules and a maximal age, carried by servers in their metadata.

    ``openstack server backup overdue`` and ``prune`` read them there with ``--policy stored``.
    Each update of the stack puts the policy on its servers again, also on those that are new.
    """

    default_client_name = "nova"
    always_replace_on_check_failed = False
    properties_schema = PROPERTIES_SCHEMA
    attributes_schema = ATTRIBUTES_SCHEMA

    def add_dependencies(self, deps: Any) -> None:
        super().add_dependencies(deps)
        if self.properties.data.get(SERVERS) is None:
            for name in self._names_of_servers():
                deps += (self, self.stack[name])

    def validate(self) -> None:
        """Find what is wrong before anything is made.

        :raises StackValidationFailed: if it is no policy, or for no server
        """
        super().validate()
        raw = self.properties.data
        values = {name: self.properties[name] for name in _RULES}
        if not any(_is_open(value, raw.get(name)) for name, value in values.items()):
            _written(values)
        if raw.get(SERVERS) is None and not list(self._names_of_servers()):
            raise exception.StackValidationFailed(
                message="the stack has no server that could carry the backup policy; name servers"
            )
        self._check_others()

    def _check_others(self) -> None:
        """Refuse another policy of the stack for the same server: it can carry one alone."""
        mine = self._carried_by(self.properties.data.get(SERVERS), self.properties[SERVERS])
        defn = self.stack.defn
        for name in sorted(defn.enabled_rsrc_names()):
            definition = defn.resource_definition(name)
            if name == self.name or self._type_of(name) != POLICY_TYPE:
                continue
            other = definition.properties(PROPERTIES_SCHEMA, self.context)
            both = mine & self._carried_by(other.data.get(SERVERS), other[SERVERS])
            if both:
                raise exception.StackValidationFailed(
                    message=f"the backup policies {' and '.join(sorted((self.name, name)))} are "
                    f"both for the server {min(both)}, which can carry one alone; have each name "
                    "its own servers"
                )

    def _carried_by(self, raw: Any, known: list[str] | None) -> set[str]:
        """The servers that a policy is for: by their names in the stack, else by their ids."""
        if raw is None:
            return set(self._names_of_servers())
        ids = {self.stack.defn[name].FnGetRefId(): name for name in self._names_of_servers()}
        references = (
            [it for it in raw if isinstance(it, GetResource)] if isinstance(raw, list) else []
        )
        named = {function.resolve(it.args) for it in references}
        return named | {ids.get(id, id) for id in known or () if id}

    def handle_create(self) -> None:
        text = _written(self.properties)
        self.resource_id_set(str(uuid.uuid4()))
        self._put_on(self._wanted(self.properties), text)

    def handle_update(self, json_snippet: Any, tmpl_diff: Any, prop_diff: Values) -> None:
        after = {**dict(self.properties), **prop_diff}
        self._put_on(self._wanted(after), _written(after))

    def handle_delete(self) -> None:
        for server in self._carriers():
            self._take_from(server)

    def handle_check(self) -> None:
        text, servers = _written(self.properties), self._carriers()
        bare = [server for server in servers if not self._is_on(server, text)]
        if bare:
            raise exception.Error(
                f"the backup policy is not on the servers {', '.join(bare)} any more; an update "
                "of the stack puts it back"
            )

    def needs_replace_failed(self) -> bool:
        """What failed half-way is done again by the same resource, whose mark the servers bear."""
        return self.resource_id is None

    def _needs_update(self, *given: Any, **more: Any) -> bool:
        # servers may be new, or have lost it, though nothing changed in the template here
        super()._needs_update(*given, **more)
        return True

    def _resolve_attribute(self, name: str) -> Any:
        return self._carriers()

    def _wanted(self, values: Values) -> list[str]:
        """The ids of the servers that the template wants it on."""
        if values[SERVERS] is not None:
            return list(dict.fromkeys(values[SERVERS]))
        return [self.stack.defn[name].FnGetRefId() for name in self._names_of_servers()]

    def _names_of_servers(self) -> Iterator[str]:
        for name in sorted(self.stack.defn.enabled_rsrc_names()):
            if self._type_of(name) == SERVER_TYPE:
                yield name

    def _type_of(self, name: str) -> str:
        """The type of a resource of the stack, for which an environment may have other names."""
        defn = self.stack.defn
        kind = defn.resource_definition(name).resource_type
        return str(defn.env.get_resource_info(kind, resource_name=name).name)

    def _put_on(self, servers: list[str], text: str) -> None:
        left = [server for server in self._carriers() if server not in servers]
        # known before it is written, so that it is found and taken away whatever happens
        self.data_set(SERVERS, json.dumps([*left, *servers]))
        for server in servers:
            self._write(server, text)
        for server in left:
            self._take_from(server)
        self.data_set(SERVERS, json.dumps(servers))

    def _write(self, server: str, text: str) -> None:
        metadata = self._metadata(server)
        if METADATA_KEY in metadata and metadata.get(METADATA_WRITER) != self._mark:
            raise PolicyTaken(
                f"the server {server} carries a backup policy already, which this resource did not "
                f"write; take the {METADATA_KEY} from its metadata first, or leave the server out"
            )
        said = {METADATA_KEY: text, METADATA_WRITER: self._mark}
        self.client().servers.set_meta(server, said)

    def _take_from(self, server: str) -> None:
        with self.client_plugin().ignore_not_found:
            if self._metadata(server).get(METADATA_WRITER) == self._mark:
                self.client().servers.delete_meta(server, [METADATA_KEY, METADATA_WRITER])

    def _is_on(self, server: str, text: str) -> bool:
        with self.client_plugin().ignore_not_found:
            return bool(self._metadata(server).get(METADATA_KEY) == text)
        return True  # a server that is gone misses nothing

    def _metadata(self, server: str) -> dict[str, str]:
        found: dict[str, str] = self.client().servers.get(server).metadata
        return found

    def _carriers(self) -> list[str]:
        """The servers that it was put on, or may have been."""
        found: list[str] = json.loads(self.data().get(SERVERS, "[]"))
        return found

    @property
    def _mark(self) -> str:
        return f"{self.stack.id}/{self.resource_id}"


def _written(values: Values) -> str:
    """The policy as servers carry it.

    :raises StackValidationFailed: if it is none
    """
    try:
        return stored_policy.write({name: values[name] for name in _RULES})
    except PolicyInvalid as error:
        raise exception.StackValidationFailed(message=str(error)) from error


def _is_open(value: Any, raw: Any) -> bool:
    """Whether a value comes from a resource that is still to be made, and is empty till then."""
    is_missing = not value or (isinstance(value, list) and not all(value))
    return is_missing and not is_known(raw)
