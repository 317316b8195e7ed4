"""Our own routes: one table of path and method to operation, and the mapper that finds them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from routes import Mapper

from related_images.db import Database
from related_images.middleware import api, lineage, paging
from related_images.middleware.access import Caller
from related_images.middleware.answers import MethodNotAllowed, WSGIApp, written
from related_images.middleware.call import Call, Handler, query_of
from related_images.middleware.environ import Environ
from related_images.protocol import paths, schemas


def _schema(name: str) -> Handler:
    return lambda call: written(schemas.SCHEMAS[name])


ROUTES: Final[dict[str, dict[str, Handler]]] = {
    paths.RELATIONS: {"GET": api.list_relations, "POST": api.attach},
    paths.IMAGE_RELATIONS: {"GET": api.list_image_relations},
    paths.RELATION: {"DELETE": api.detach},
    paths.ANCESTRY: {"GET": lineage.list_ancestry},
    paths.DESCENDANTS: {"GET": lineage.list_descendants},
    paths.INSTANCES: {"GET": api.list_instances},
    paths.INSTANCE: {"GET": api.show_instance, "DELETE": api.end_instance},
    paths.USAGES: {"GET": api.list_usages},
    paths.INSTALLATIONS: {"GET": api.list_installations, "POST": api.register_installation},
    paths.INSTALLATION: {"DELETE": api.unregister_installation},
    paths.INFO: {"GET": api.show_info},
    **{paths.SCHEMA.format(name=name): {"GET": _schema(name)} for name in schemas.SCHEMAS},
}

LISTS: Final = frozenset(
    (
        *(api.list_relations, api.list_image_relations, api.list_instances, api.list_usages),
        *(lineage.list_ancestry, lineage.list_descendants),
    )
)
"""The handlers of lists, which read a query."""

QUERIED: Final = LISTS | {api.detach}
"""The handlers that read a query; to all others none is given."""


@dataclass(frozen=True)
class Route:
    """A request to a path of ours: its handler, or the methods that are ``allowed`` instead."""

    handler: Handler | None
    allowed: tuple[str, ...]
    ids: Mapping[str, str]


_ID: Final = re.compile(r"{(\w+)}")

WORDS: Final = frozenset(_ID.sub("", path).rstrip("/").rpartition("/")[2] for path in ROUTES)
"""The last fixed word of each path: a path without any of them is not ours, which is soon seen."""


def _mapper() -> Mapper:
    """Each method of a path, then the same path with the answer to every other method."""
    made = Mapper(controller_scan=None, explicit=True)
    for path, methods in ROUTES.items():
        # what Routes takes for an id by itself leaves a line break at the end out
        ids = dict.fromkeys(_ID.findall(path), "[^/]+")
        for method, handler in methods.items():
            only = {"method": [method]}
            made.connect(path, action=handler, _path=path, requirements=ids, conditions=only)
        made.connect(path, action=None, _path=path, requirements=ids)
    made.create_regs([])
    return made


_MAPPER: Final = _mapper()


def match(path: str, method: str) -> Route | None:
    """The route of ours that a request for ``path``, below ``/v2``, is; ``None`` if it is none."""
    found: dict[str, Any] | None = _MAPPER.match(path, {"REQUEST_METHOD": method})
    if found is None:
        return None
    handler, template = found.pop("action"), found.pop("_path")
    if template.format(**found) != path:  # Routes lets a path end in a line break
        return None
    return Route(handler, tuple(ROUTES[template]), found)


def answer(
    app: WSGIApp, database: Database, caller: Caller, route: Route, environ: Environ
) -> WSGIApp:
    """The answer to a request to the ``route``.

    :raises NotIdentified: if nobody vouches for the caller
    :raises MethodNotAllowed: if the path does not answer the method
    :raises ParameterUnknown: if there is a query where none is read
    """
    caller.must_be_identified()
    if route.handler is None:
        raise MethodNotAllowed(environ["REQUEST_METHOD"], route.allowed)
    given = query_of(environ)
    if route.handler not in QUERIED:
        paging.refuse(given)
    return route.handler(Call(app, database, caller, environ, route.ids, given))
