"""Saying for which instance image requests are made, below whatever client makes them.

The instance is held by a context variable and put into headers at the moment of each request, so
that one client serves many threads and greenlets. It is given to the part of a client that talks to
the image service alone: what the same session asks of Keystone or Nova never carries it.
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
    """Within this block image requests are made for ``instance``; blocks may be nested.

    What is created is recorded as ``kind`` (``snapshot`` if none is given) under ``label``, and
    lists hold only what matches. ``project_id`` is the project that owns the instance, which sees
    from what it was started; who does not know it leaves it out. Only requests that are *sent*
    within the block carry it: read a lazy list to its end before leaving.

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


def for_nobody() -> AbstractContextManager[None]:
    """Within this block image requests are made for no instance."""
    return _asserting(None)


def in_this_context(
    function: Callable[Arguments, Result],
) -> Callable[Arguments, Result]:
    """Make ``function`` speak for the present instance wherever it is run.

    Threads of an executor and new greenlets start with an empty context; what is handed to them
    is wrapped by this. The result may run many times, and many times at once.
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # one context can be entered only once at a time
        return context.copy().run(function, *args, **kwargs)

    return run


class TupleHeaders(MutableMapping[str, str]):
    """Headers that hold the tuple of the context in which they are read, over others of their own.

    :param headers: those that every request carries
    """

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._own = dict(headers or {})

    def _now(self) -> dict[str, str]:
        assertion = _current.get()
        return self._own | assertion.as_headers() if assertion else self._own

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        # clients replace headers that are false by none at all
        return True

    def __setitem__(self, name: str, value: str) -> None:
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        del self._own[name]


def carry_tuple(client: Client) -> Client:
    """Make the image requests of ``client`` carry the tuple of the context they are sent in.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :returns: the same client
    :raises TypeError: if it is none of them; a ``Session`` serves all services and takes no
        headers, :func:`image_adapter` makes an adapter of it
    """
    part = image_part(client)
    name = "additional_headers" if isinstance(part, Adapter) else "identity_headers"
    headers = getattr(part, name)
    if not isinstance(headers, TupleHeaders):
        setattr(part, name, TupleHeaders(headers))
    return client


def image_adapter(session: Session, **options: Any) -> Adapter:
    """An adapter of ``session`` for the image service, which carries the tuple of the context.

    :param options: more for keystoneauth1's ``Adapter``, such as ``region_name``
    """
    headers = TupleHeaders(options.pop("additional_headers", None))
    return Adapter(session, **{"service_type": "image", **options}, additional_headers=headers)


def image_part(client: object) -> Any:
    """The part of ``client`` that talks to the image service.

    :raises TypeError: if there is none
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
        "or what image_adapter(session) gives"
    )
