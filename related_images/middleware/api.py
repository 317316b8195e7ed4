"""Our own routes: one table of path and method to handler. A handler parses, asks, serialises."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import related_images
from related_images import model, validation
from related_images.db import Database, Filters, installations, instances, listing, recording
from related_images.errors import NotIdentified, StoreUnavailable
from related_images.middleware import (
    attaching,
    lineage,
    paging,
    registry,
)
from related_images.middleware.answers import MethodNotAllowed, WSGIApp
from related_images.middleware.call import Call, Outcome, fields
from related_images.middleware.environ import Environ, request_id
from related_images.middleware.identity import Caller
from related_images.middleware.recording import json_object
from related_images.protocol import paths, schemas

LOG = logging.getLogger(__name__)


def list_relations(call: Call) -> Outcome:
    return HTTPStatus.OK, _relations(call, call.query(paging.FILTERS), paths.href(paths.RELATIONS))


def list_image_relations(call: Call) -> Outcome:
    image_id = call.image_id()
    query = call.query(paging.IMAGE_FILTERS)
    query.filters["image_id"] = image_id
    body = _relations(call, query, paths.href(paths.IMAGE_RELATIONS, image_id=image_id))
    if not body["relations"] and not _has_relations(call, image_id):
        registry.image(call.app, call.environ, image_id)
    return HTTPStatus.OK, body


def _has_relations(call: Call, image_id: str) -> bool:
    """Whether the caller sees the image here, though the registry may have forgotten it."""
    filters = Filters(image_id=image_id, visible_to=call.caller.visible_to)
    return bool(listing.relations(call.database, filters, 1, None).items)


def _relations(call: Call, query: paging.Query, path: str) -> schemas.Json:
    filters = Filters(**query.filters, visible_to=call.caller.visible_to)
    after = paging.relation_position(query.marker)
    found = listing.relations(call.database, filters, query.limit, after)
    marker = paging.relation_marker(found.items[-1]) if found.more else None
    rows = map(schemas.relation, found.items)
    return schemas.page("relations", rows, path, query.kept, marker)


def attach(call: Call) -> Outcome:
    call.must_record()
    body = fields(
        json_object(call.environ),
        needed=attaching.NEEDED,
        optional=attaching.OPTIONAL,
    )
    new = attaching.relation_of(body, call.app, call.environ, call.caller)
    speaker = call.caller.speaker()
    found, created = attaching.attach(new, call.app, call.environ, call.database, speaker)
    if created:
        LOG.info("attached image %s to instance %s (%s)", new.image_id, new.instance_id, new.kind)
    return HTTPStatus.CREATED if created else HTTPStatus.OK, schemas.relation(found)


def detach(call: Call) -> Outcome:
    own_report, recorded_at = paging.read_detachment(call.query_string)
    ref, image_id, kind = call.instance(), call.image_id(), model.kind(call.ids["kind"])
    ids = (ref.installation_uuid, ref.instance_id, image_id, kind)
    left = None
    if own_report is None:
        call.must_remove()
        recording.detach(call.database, *ids, call.caller.remover())
    else:
        call.must_record()
        left = recording.revoke(call.database, *ids, call.caller.speaker(), recorded_at)
    done = "detached" if left is None else f"took the {own_report} back, which others report too:"
    LOG.info(
        "%s image %s from instance %s of %s (%s): %s [%s]",
        *(done, image_id, ref.instance_id, ref.installation_uuid, kind),
        *(call.caller.described, request_id(call.environ)),
    )
    if left is None:
        return HTTPStatus.NO_CONTENT, None
    return HTTPStatus.OK, schemas.relation(left)


def list_instances(call: Call) -> Outcome:
    query = call.query(paging.INSTANCE_FILTERS)
    latest_before = query.filters.pop(paging.LATEST_BEFORE, None)
    filters = Filters(**query.filters, visible_to=call.caller.visible_to)
    after = paging.instance_position(query.marker)
    until = datetime.now(UTC) + validation.CLOCK_SKEW
    found = instances.page(call.database, filters, query.limit, after, latest_before, until)
    marker = paging.instance_marker(found.items[-1]) if found.more else None
    path = paths.href(paths.INSTANCES)
    rows = map(schemas.instance, found.items)
    return HTTPStatus.OK, schemas.page("instances", rows, path, query.kept, marker)


def show_instance(call: Call) -> Outcome:
    ref = call.instance()
    found = instances.show(
        call.database, ref.installation_uuid, ref.instance_id, call.caller.visible_to
    )
    return HTTPStatus.OK, schemas.instance(found)


def end_instance(call: Call) -> Outcome:
    call.must_remove()
    ref = call.instance()
    recording.end_instance(
        call.database, ref.installation_uuid, ref.instance_id, call.caller.remover()
    )
    LOG.info(
        "recorded that instance %s of %s was deleted: %s [%s]",
        *(ref.instance_id, ref.installation_uuid),
        *(call.caller.described, request_id(call.environ)),
    )
    return HTTPStatus.NO_CONTENT, None


def list_usages(call: Call) -> Outcome:
    (image_ids,) = paging.read_all(call.query_string, paging.USAGE_FILTERS).values()
    visible_to = call.caller.visible_to
    found = listing.usages(call.database, image_ids, visible_to, _owners(call, image_ids))
    rows = [schemas.usage(row) for row in found]
    return HTTPStatus.OK, {"usages": rows, "all_projects": visible_to is None}


def _owners(call: Call, image_ids: list[str]) -> dict[str, str | None] | None:
    """Whose the images are of which the caller may know whether others use them.

    Glance is asked about all of them, so that neither the answer nor its time tells more of an
    image that is not the caller's own.
    """
    found = registry.owners(call.app, call.environ, image_ids)
    if found is None or call.caller.sees_all:
        return found
    own = call.caller.project_id
    return {id: owner for id, owner in found.items() if own is not None and owner == own}


def list_installations(call: Call) -> Outcome:
    call.must_administrate()
    found = installations.registered(call.database)
    return HTTPStatus.OK, {"installations": [schemas.installation(row) for row in found]}


def register_installation(call: Call) -> Outcome:
    call.must_administrate()
    body = fields(json_object(call.environ), needed=("uuid", "name"), optional=("service_user_id",))
    uuid = validation.installation_uuid(body["uuid"])
    name, user = validation.text("name", body["name"]), body.get("service_user_id")
    bound = None if user is None else validation.text("service_user_id", user)
    found, created = installations.register(call.database, uuid, name, bound)
    return HTTPStatus.CREATED if created else HTTPStatus.OK, schemas.installation(found)


def unregister_installation(call: Call) -> Outcome:
    call.must_administrate()
    installations.unregister(call.database, validation.installation_uuid(call.ids["uuid"]))
    return HTTPStatus.NO_CONTENT, None


def show_info(call: Call) -> Outcome:
    settings, reconciliation = call.settings, _reconciliation(call)
    return HTTPStatus.OK, {
        "version": related_images.__version__,
        "kinds": list(model.KINDS),
        "sources": list(model.SOURCES),
        "limits": {
            "page": paging.LIMIT_MOST,
            "images_of_instance": listing.IMAGES_LIMIT,
            "instance_id_length": validation.INSTANCE_ID_LENGTH,
            "label_length": validation.LABEL_LENGTH,
        },
        "require_registered_installation": settings.require_registered_installation,
        "guard": settings.guard,
        "nova_rotation": settings.nova_rotation,
        "database": "up" if call.database.is_up() else "down",
        **reconciliation,
    }


def _reconciliation(call: Call) -> schemas.Json:
    """Null where the database is down; only for those who see everything is something counted."""
    last = unreconciled = None
    with suppress(StoreUnavailable):
        last = listing.reconciliation(call.database)
        if call.caller.sees_all:
            unreconciled = listing.unreconciled(call.database, last)
    if last and not call.caller.sees_all:
        last = {name: last[name] for name in ("until", "finished_at")}
    return {"last_reconciliation": last, "unreconciled": unreconciled}


def _schema(name: str) -> Callable[[Call], Outcome]:
    return lambda call: (HTTPStatus.OK, schemas.SCHEMAS[name])


Handler = Callable[[Call], Outcome]

ROUTES: Final[dict[str, dict[str, Handler]]] = {
    paths.RELATIONS: {"GET": list_relations, "POST": attach},
    paths.IMAGE_RELATIONS: {"GET": list_image_relations},
    paths.RELATION: {"DELETE": detach},
    paths.ANCESTRY: {"GET": lineage.list_ancestry},
    paths.DESCENDANTS: {"GET": lineage.list_descendants},
    paths.INSTANCES: {"GET": list_instances},
    paths.INSTANCE: {"GET": show_instance, "DELETE": end_instance},
    paths.USAGES: {"GET": list_usages},
    paths.INSTALLATIONS: {"GET": list_installations, "POST": register_installation},
    paths.INSTALLATION: {"DELETE": unregister_installation},
    paths.INFO: {"GET": show_info},
    **{paths.SCHEMA.format(name=name): {"GET": _schema(name)} for name in schemas.SCHEMAS},
}


LISTS: Final = frozenset(
    (
        *(list_relations, list_image_relations, list_instances, list_usages),
        *(lineage.list_ancestry, lineage.list_descendants),
    )
)
"""The handlers of lists, which read a query."""

QUERIED: Final = LISTS | {detach}
"""The handlers that read a query; to all others none is given."""


Route = tuple[Mapping[str, Handler], Mapping[str, str]]
"""The handlers of a path by method, and the ids in it."""


_TEMPLATES: Final = tuple(ROUTES)


def _tree(ways: Iterable[tuple[list[str], int]]) -> str:
    """One pattern for the numbered paths, given as words, that looks at each word once.

    Behind each path stands an empty group with its number. An id gives nothing back (``++``) once
    the rest does not fit, as it does not for most paths.
    """
    following: dict[str, list[tuple[list[str], int]]] = {}
    for words_left, number in ways:
        branch = "/" + words_left[0] if words_left else f"(?P<path_{number}>)"
        following.setdefault(branch, []).append((words_left[1:], number))
    branches = [
        branch + _tree(rest) if branch.startswith("/") else branch
        for branch, rest in following.items()
    ]
    return f"(?:{'|'.join(branches)})"


def _pattern() -> re.Pattern[str]:
    tree = _tree((path.split("/")[1:], number) for number, path in enumerate(_TEMPLATES))
    return re.compile(re.sub(r"{\w+}", "([^/]++)", tree))


_OURS: Final = _pattern()


def route(path: str) -> Route | None:
    """The route of ours that ``path``, below ``/v2``, is; ``None`` if it is none."""
    found = _OURS.fullmatch(path)
    if found is None:
        return None
    template = _TEMPLATES[int(str(found.lastgroup).removeprefix("path_"))]
    names = re.findall(r"{(\w+)}", template)
    return ROUTES[template], dict(zip(names, filter(None, found.groups()), strict=True))


def handle(
    app: WSGIApp, database: Database, caller: Caller, environ: Environ, found: Route
) -> Outcome:
    """Answer a request to the route that was ``found``.

    :raises NotIdentified: if nobody vouches for the caller
    :raises MethodNotAllowed: if the path does not answer the method
    :raises ParameterUnknown: if there is a query where none is read
    """
    methods, ids = found
    method = environ["REQUEST_METHOD"]
    if not caller.is_identified:
        raise NotIdentified("a token that the identity service confirms is needed")
    if method not in methods:
        raise MethodNotAllowed(method, methods)
    handler = methods[method]
    if handler not in QUERIED:
        paging.refuse(environ.get("QUERY_STRING", ""))
    return handler(Call(app, database, caller.settings, environ, caller, ids))
