"""Add the instance headers to the image requests of any OpenStack client.

A context variable has the server. Each request reads it when it is sent, so threads and greenlets
can share one client. Only the part of a client for the image service gets the headers: requests of
the same session to Keystone or Nova do not have them.
"""

import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session

from related_images import model, validation
from related_images.model import InstanceRef
from related_images.protocol.headers import INSTANCE_PROJECT_ID, Assertion

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Client = TypeVar("Client")

_current: contextvars.ContextVar[Assertion | None] = contextvars.ContextVar(
    "related_images_assertion", default=None
)


@contextmanager
def for_instance(
    instance: InstanceRef,
    *,
    kind: str | None = None,
    label: str | None = None,
    project_id: str | None = None,
) -> Iterator[None]:
    """Send the instance headers with the image requests in this block. Blocks can be nested.

    Images created in the block are recorded for the server. Image lists in the block have only
    images that match all values. A lazy list must be read in the block, because only requests that
    are *sent* in the block have the headers.

    :param instance: the server
    :param kind: kind of the relation; default: ``snapshot`` for new images, any kind for lists
    :param label: label of the relation
    :param project_id: ID of the project that owns the server, if known; this project then sees from
        which image the server was started
    :raises BadInput: if a value is malformed
    """
    assertion = Assertion(
        instance,
        None if kind is None else model.kind(kind),
        None if label is None else validation.label(label),
        None if project_id is None else validation.project_id(INSTANCE_PROJECT_ID, project_id),
    )
    with _asserting(assertion):
        yield


@contextmanager
def _asserting(assertion: Assertion | None) -> Iterator[None]:
    token = _current.set(assertion)
    try:
        yield
    finally:
        _current.reset(token)


def without_instance() -> AbstractContextManager[None]:
    """Send image requests in this block without the instance headers."""
    return _asserting(None)


def in_this_context(
    function: Callable[Arguments, Result],
) -> Callable[Arguments, Result]:
    """Wrap ``function``, so that it runs in the current context, in any thread or greenlet.

    Threads of an executor and new greenlets start with an empty context.

    :param function: the function to pass to the executor
    :returns: a function with the same arguments, which can run several times concurrently
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # a context cannot be entered twice concurrently
        return context.copy().run(function, *args, **kwargs)

    return run


class TupleHeaders(MutableMapping[str, str]):
    """A mapping of headers that includes the instance headers of the context that reads it.

    :param headers: other headers
    """

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._own = dict(headers or {})

    def _current_headers(self) -> dict[str, str]:
        assertion = _current.get()
        return self._own | assertion.as_headers() if assertion else self._own

    def __getitem__(self, name: str) -> str:
        return self._current_headers()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current_headers())

    def __len__(self) -> int:
        return len(self._current_headers())

    def __bool__(self) -> bool:
        # clients ignore a mapping that is false
        return True

    def __setitem__(self, name: str, value: str) -> None:
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        del self._own[name]


def carry_tuple(client: Client) -> Client:
    """Make ``client`` send the instance headers of the context with its image requests.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :returns: the same client
    :raises TypeError: if it has another type; for a ``Session``, which is for all services, use
        :func:`image_adapter`
    """
    part = image_part(client)
    name = "additional_headers" if isinstance(part, Adapter) else "identity_headers"
    headers = getattr(part, name)
    if not isinstance(headers, TupleHeaders):
        setattr(part, name, TupleHeaders(headers))
    return client


def image_adapter(session: Session, **options: Any) -> Adapter:
    """Return an adapter for the image service that sends the instance headers of the context.

    :param session: a keystoneauth1 ``Session``
    :param options: options of keystoneauth1's ``Adapter``, such as ``region_name``
    """
    headers = TupleHeaders(options.pop("additional_headers", None))
    return Adapter(session, **{"service_type": "image", **options}, additional_headers=headers)


def image_part(client: object) -> Any:
    """Return the part of ``client`` for the image service.

    :param client: as for :func:`carry_tuple`
    :returns: an adapter, or the HTTP client of a glanceclient without a session
    :raises TypeError: if it has another type
    """
    if isinstance(client, Adapter):
        return client
    for name in ("http_client", "image"):
        part = getattr(client, name, None)
        if isinstance(part, Adapter) or hasattr(part, "identity_headers"):
            return part
    raise TypeError(
        f"{type(client).__module__}.{type(client).__qualname__} is not a client of the image "
        "service; use a glanceclient Client, an openstacksdk Connection, a keystoneauth1 Adapter, "
        "or image_adapter(session)"
    )
