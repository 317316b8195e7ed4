"""Register installations, and check who may report on one.

The service users of an installation are in two columns. ``service_users`` is a JSON text with the
time of the registration. Filters of the previous version, which may run during an upgrade, read
``service_user_id``: the only service user, for all types of resources. Such a filter must not
permit more than this version. It removes or repeats a registration without a change of
``service_users``; the time of the registration shows that.
"""

import json
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, false, select, update

from related_images import validation
from related_images.db import leases
from related_images.db.column_types import WITNESS_CODES, is_known
from related_images.db.database import Database
from related_images.db.row_ids import get_or_create, get_or_create_installation
from related_images.db.tables import installation, witness
from related_images.errors import (
    FieldInvalid,
    InstallationBound,
    InstallationConflict,
    InstallationNotFound,
    InstallationUnregistered,
)
from related_images.jsonform import JsonForm
from related_images.model import (
    SERVER,
    SERVICE_USERS_LIMIT,
    Heartbeat,
    Installation,
    InstanceRef,
    Reporter,
    ServiceUser,
)

REGISTER_AGAIN: Final = (
    "`related-images installation remove {uuid}` (or DELETE /v2/installations/{uuid}), then "
    "`related-images installation add {uuid}` (or POST /v2/installations)"
)
"""How to register an installation with another name, other service users or witnesses."""

NOBODY: Final = "(see service_users)"
"""The ``service_user_id`` of an installation that has no service user for all types."""


def registered(database: Database) -> list[Installation]:
    """Return every registered installation, sorted by name.

    :raises StoreUnavailable: if the database is unavailable
    """
    return database.read(registered_in)


def register(
    database: Database,
    uuid: str,
    name: str,
    service_users: Sequence[ServiceUser] = (),
    witnesses: Sequence[str] = (),
) -> tuple[Installation, bool]:
    """Register an installation.

    :param service_users: the only service users that may report on its resources; if empty, every
        caller with a recording role may report
    :param witnesses: the witnesses that are expected to report on it
    :returns: the installation, and whether it is newly registered
    :raises FieldInvalid: if there are too many service users, or one of them twice
    :raises ResourceTypeUnknown: if a type of one is neither built-in nor registered
    :raises InstallationConflict: if it is registered with another name, other service users or
        other witnesses
    """
    _check_users(service_users)
    new = Installation(uuid, name, tuple(service_users), datetime.now(UTC), tuple(witnesses))
    found, created = database.write(_register, new)
    if _values(found) != _values(new):
        users = ", ".join(map(str, found.service_users))
        raise InstallationConflict(
            f"the installation {uuid} is registered as {found.name!r}; its expected witnesses are: "
            f"{', '.join(found.witnesses) or 'none'}; its service users are: {users or 'any'}; to "
            f"change that: {REGISTER_AGAIN.format(uuid=uuid)}"
        )
    return found, created


def _values(one: Installation) -> tuple[str, Set[ServiceUser], Set[str]]:
    return one.name, set(one.service_users), set(one.witnesses)


def _check_users(service_users: Sequence[ServiceUser]) -> None:
    if len(service_users) > SERVICE_USERS_LIMIT:
        raise FieldInvalid(
            f"the field service_users names {len(service_users)} users; give at most "
            f"{SERVICE_USERS_LIMIT}"
        )
    ids = [user.user_id for user in service_users]
    for twice in (id for id in ids if ids.count(id) > 1):
        raise FieldInvalid(
            f"the field service_users names the user {validation.shown(twice)} twice; name each "
            "user once, with all of its types"
        )


def unregister(database: Database, uuid: str) -> None:
    """Remove the registration of an installation; its relations and its coverage remain.

    :raises InstallationNotFound: if it is not registered
    """
    if not database.write(_unregister, uuid):
        raise InstallationNotFound(f"the installation {uuid} is not registered")


_columns: Final = (
    installation.c.uuid,
    installation.c.name,
    installation.c.service_user_id,
    installation.c.service_users,
    installation.c.registered_at,
)
_by_uuid: Final = (
    select(*_columns)
    .where(installation.c.uuid == bindparam("uuid"), installation.c.resource_type == SERVER)
    .where(installation.c.registered_at.is_not(None))
)


def _find(connection: Connection, uuid: str) -> Installation | None:
    """Return the installation with this UUID, or ``None`` if it is not registered."""
    row = connection.execute(_by_uuid, {"uuid": uuid}).first()
    return None if row is None else _installation(row, _expected(connection))


def check_reporter(
    connection: Connection, reported: InstanceRef | Heartbeat, reporter: Reporter
) -> None:
    """Read the registration of the installation, and check it with :func:`check_registration`."""
    if not reporter.for_any_installation:
        uuid = reported.installation_uuid
        found = connection.execute(_by_uuid, {"uuid": uuid}).first()
        check_registration(uuid, reported.resource_type, reporter, found)


def check_registration(
    uuid: str, resource_type: str, reporter: Reporter, registration: Any
) -> None:
    """Raise unless the reporter may report on resources of this type of the installation.

    :param registration: a row with ``registered_at``, ``service_user_id`` and ``service_users`` of
        the installation; without a time, or ``None``, if it is not registered
    :raises InstallationUnregistered: if it must be registered and is not
    :raises InstallationBound: if it is bound to other service users, or to the reporter only for
        other types
    """
    if registration is None or registration.registered_at is None:
        if reporter.require_registered:
            raise InstallationUnregistered(
                f"the installation {uuid} is not registered here; an administrator can register it "
                "with `related-images installation add` or POST /v2/installations"
            )
        return
    bound_to = _service_users(registration)
    own = [user for user in bound_to if user.user_id in reporter.user_ids]
    if bound_to and not any(user.may_report_on(resource_type) for user in own):
        raise _bound(uuid, resource_type, own)


def may_report(uuid: str, resource_type: str, reporter: Reporter, registration: Any) -> bool:
    """Return whether :func:`check_registration` accepts the same arguments."""
    try:
        check_registration(uuid, resource_type, reporter, registration)
    except (InstallationUnregistered, InstallationBound):
        return False
    return True


def _bound(uuid: str, resource_type: str, own: Sequence[ServiceUser]) -> InstallationBound:
    """Return the error for a reporter.

    :param own: the service users of the reporter to which the installation is bound
    """
    if not own:
        return InstallationBound(
            f"the installation {uuid} is registered with other service users; send the request as "
            "one of these users, or ask an administrator to register it again with this user: "
            f"{REGISTER_AGAIN.format(uuid=uuid)}"
        )
    types = sorted({one for user in own for one in user.resource_types or ()})
    return InstallationBound(
        f"the service user of this request may report on resources of the installation {uuid} of "
        f"the type {' or '.join(types)}, not of the type {resource_type}; send the request as a "
        "service user for that type, or ask an administrator to register the installation again "
        f"with this user for that type: {REGISTER_AGAIN.format(uuid=uuid)}"
    )


_expected_witnesses: Final = (
    select(installation.c.uuid, witness.c.witness)
    .join(installation, installation.c.id == witness.c.installation_ref)
    .where(witness.c.expected == 1, is_known(witness.c.witness, WITNESS_CODES))
    .order_by(witness.c.witness)
)
_list: Final = (
    select(*_columns)
    .where(installation.c.registered_at.is_not(None))
    .order_by(installation.c.name, installation.c.uuid)
)


def registered_in(connection: Connection) -> list[Installation]:
    expected = _expected(connection)
    return [_installation(row, expected) for row in connection.execute(_list)]


def _expected(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the expected witnesses of all installations, by UUID."""
    found: dict[str, tuple[str, ...]] = {}
    for uuid, name in connection.execute(_expected_witnesses):
        found[uuid] = *found.get(uuid, ()), name
    return found


def bound_to(connection: Connection, user_ids: Set[str], resource_type: str) -> set[str]:
    """Return the UUIDs of the installations that are bound to one of these users for a type."""
    return {
        one.uuid
        for one in registered_in(connection)
        for user in one.service_users
        if user.user_id in user_ids and user.may_report_on(resource_type)
    }


def _register(connection: Connection, new: Installation) -> tuple[Installation, bool]:
    """Register the installation unless it is registered.

    :returns: the installation as it is registered now, and whether this call registered it
    """
    types = {one for user in new.service_users for one in user.resource_types or ()}
    leases.check_types(connection, types)
    ref = get_or_create_installation(connection, new.uuid)
    unregistered = update(installation).where(
        installation.c.id == ref, installation.c.registered_at.is_(None)
    )
    users = _Users(new.registered_at, new.service_users)
    values = {
        "name": new.name,
        "service_user_id": _for_all_types(new.service_users),
        "service_users": json.dumps(users.as_json()) if new.service_users else None,
        "registered_at": new.registered_at,
    }
    created = bool(connection.execute(unregistered.values(**values)).rowcount)
    if created:
        _expect(connection, ref, new.witnesses)
    return _find(connection, new.uuid) or new, created


def _expect(connection: Connection, ref: int, names: Collection[str]) -> None:
    """Expect these witnesses of an installation, and no others."""
    own = witness.c.installation_ref == ref
    for name in names:
        if connection.execute(select(witness.c.id).where(own, witness.c.witness == name)).first():
            continue
        get_or_create(connection, witness, {"installation_ref": ref, "witness": name})
    is_named = witness.c.witness.in_(names) if names else false()
    connection.execute(update(witness).where(own).values(expected=case((is_named, 1), else_=0)))


def _unregister(connection: Connection, uuid: str) -> bool:
    """Remove the registration, and return whether there was one."""
    registration = update(installation).where(
        installation.c.uuid == uuid, installation.c.registered_at.is_not(None)
    )
    names = ("name", "service_user_id", "service_users", "registered_at")
    removed = bool(connection.execute(registration.values(dict.fromkeys(names))).rowcount)
    if removed:
        _expect(connection, get_or_create_installation(connection, uuid), ())
    return removed


def _installation(row: Any, expected: Mapping[str, tuple[str, ...]]) -> Installation:
    witnesses = expected.get(row.uuid, ())
    return Installation(row.uuid, row.name, _service_users(row), row.registered_at, witnesses)


@dataclass(frozen=True, slots=True)
class _Users(JsonForm):
    """The JSON of the column ``service_users``.

    :ivar registered_at: the time of the registration with these users
    """

    registered_at: datetime
    users: tuple[ServiceUser, ...]


@lru_cache(maxsize=256)
def _parsed(text: str) -> _Users:
    return _Users.from_json(json.loads(text))


def _service_users(registration: Any) -> tuple[ServiceUser, ...]:
    """Return the service users of a registered installation."""
    if registration.service_users is not None:
        stored = _parsed(registration.service_users)
        if stored.registered_at == registration.registered_at:
            return stored.users
    # a filter of the previous version registered it
    user = registration.service_user_id
    return () if user is None else (ServiceUser(user),)


def _for_all_types(service_users: Sequence[ServiceUser]) -> str | None:
    """Return the user to which filters of the previous version bind the installation, if any."""
    if not service_users:
        return None
    return next((user.user_id for user in service_users if user.resource_types is None), NOBODY)
