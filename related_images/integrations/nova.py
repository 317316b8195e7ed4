"""A paste filter for nova-api, which adds the instance headers when Nova creates an image.

    [filter:related-images]
    paste.filter_factory = related_images.integrations.nova:filter_factory
    installation_uuid = …

Its place in the pipeline is before ``osapi_compute_app_v21``. It passes on the application
unchanged. When it is loaded, it patches four functions of Nova that create images, and a function
of glanceclient that converts responses to exceptions. It first checks the names and the arguments
of these functions. No file of Nova or glanceclient is changed.
"""

import contextvars
import functools
import importlib
import importlib.metadata
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from related_images import model, validation
from related_images.client import (
    InstanceRef,
    TupleHeaders,
    carry_tuple,
    for_instance,
)
from related_images.errors import ConfigurationError, NovaUnexpected
from related_images.integrations import nova_errors
from related_images.protocol import headers, paths

LOG = logging.getLogger(__name__)

App = TypeVar("App")

OPTION: Final = "installation_uuid"
CREATION: Final = paths.API + paths.IMAGES


@dataclass(frozen=True)
class PatchTarget:
    """A function to patch: its module, its path in the module, and the names of its arguments."""

    module: str
    path: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


CREATE_IMAGE: Final = PatchTarget(
    "nova.compute.utils",
    "create_image",
    ("context", "instance", "name", "image_type", "image_api", "extra_properties"),
)
SNAPSHOT_VOLUMES: Final = PatchTarget(
    "nova.compute.api",
    "API.snapshot_volume_backed",
    ("self", "context", "instance", "name", "extra_properties"),
)
SHELVE: Final = PatchTarget(
    "nova.compute.api", "API.shelve", ("self", "context", "instance", "clean_shutdown")
)
MAKE_CLIENT: Final = PatchTarget(
    "nova.image.glance",
    "_glanceclient_from_endpoint",
    ("context", "endpoint", "version"),
)
MAKE_ERROR: Final = PatchTarget("glanceclient.exc", "from_response", ("response", "body"))

_made_as: contextvars.ContextVar[str | None] = contextvars.ContextVar("made_as", default=None)
"""The kind of the images that the current action of Nova creates, if Nova does not say it."""

_installed: list[str] = []
"""The installation for which this process is patched; empty if it is not."""


def filter_factory(
    global_conf: Mapping[str, str] | None, **local_conf: str
) -> Callable[[App], App]:
    """Patch Nova, and return a filter for PasteDeploy that does nothing.

    :param global_conf: the defaults of the paste file
    :param local_conf: the options of the filter; ``installation_uuid`` is the only one
    :returns: a function that returns its argument
    :raises BadInput: if the UUID is malformed
    :raises ConfigurationError: if the option is missing, or another one is present
    :raises NovaUnexpected: if a function to patch is missing or has other arguments
    """
    unknown = set(local_conf) - {OPTION}
    if unknown or OPTION not in local_conf:
        raise ConfigurationError(
            f"the filter of nova-api needs the option {OPTION} and has no other option, "
            f"but the section has: {', '.join(sorted(local_conf)) or 'none'}"
        )
    install(local_conf[OPTION], is_api=True)
    _warn_without_service_token()
    return lambda app: app


def install(installation_uuid: str, *, is_api: bool = False) -> None:
    """Patch the functions of Nova in this process, so that they send the instance headers.

    Another call with the same UUID does nothing, because Nova loads a filter once per pipeline.

    :param installation_uuid: the UUID of this Nova deployment
    :param is_api: whether the process is nova-api, which reports Glance's error to the user
    :raises BadInput: if the UUID is malformed
    :raises ConfigurationError: if the process is patched for another installation
    :raises NovaUnexpected: if a function to patch is missing or has other arguments
    """
    uuid = validation.installation_uuid(installation_uuid.strip())
    if _installed == [uuid]:
        return
    if _installed:
        raise ConfigurationError(
            f"this process sends the instance headers of the installation {_installed[0]} and "
            f"cannot send those of {uuid}; use one installation_uuid in all pipelines"
        )
    wrappers: list[tuple[PatchTarget, Callable[[Any], Any]]] = [
        (CREATE_IMAGE, functools.partial(_set_instance, uuid)),
        (SNAPSHOT_VOLUMES, functools.partial(_set_instance, uuid)),
        (SHELVE, _make_shelved),
        (MAKE_CLIENT, _send_instance_headers),
    ]
    if is_api:
        wrappers += [
            (CREATE_IMAGE, nova_errors.raise_refusals),
            (SNAPSHOT_VOLUMES, nova_errors.raise_refusals),
            (MAKE_ERROR, nova_errors.keep_refusals),
        ]
    for target, _ in wrappers:
        _find(target)
    for target, wrapper in wrappers:
        owner, name, function = _find(target)
        setattr(owner, name, wrapper(function))
    _installed.append(uuid)
    LOG.info("sending the instance headers of the installation %s", uuid)


def _find(target: PatchTarget) -> tuple[Any, str, Callable[..., Any]]:
    """Return the module or class with the function, the name of the attribute, and the function.

    :raises NovaUnexpected: if the function is missing or has other arguments
    """
    *owners, name = target.path.split(".")
    try:
        owner = functools.reduce(getattr, owners, importlib.import_module(target.module))
        function = getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise _unexpected(f"has no {target} ({error})") from error
    arguments = tuple(inspect.signature(function).parameters)
    if arguments != target.arguments:
        expected, actual = ", ".join(target.arguments), ", ".join(arguments)
        raise _unexpected(f"has {target}({actual}), expected is {target}({expected})")
    return owner, name, function


def _unexpected(difference: str) -> NovaUnexpected:
    version = importlib.metadata.version("nova")
    return NovaUnexpected(
        f"Nova {version} {difference}; install a version of related-images that supports this "
        "Nova, or remove the filter and run `related-images listen` instead"
    )


def _set_instance(installation_uuid: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that creates an image, so that requests in it are for its server."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        server = arguments["instance"]
        instance = InstanceRef(installation_uuid, server.uuid)
        kind = _made_as.get() or arguments.get("image_type", model.SNAPSHOT)
        with for_instance(
            instance, kind=kind, label=_label(kind, arguments), project_id=server.project_id
        ):
            return function(*args, **kwargs)

    return wrapper


def _make_shelved(shelve: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``shelve``, so that the image in it is recorded as that of a shelved server."""

    @functools.wraps(shelve)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        token = _made_as.set(model.SHELVED)
        try:
            return shelve(*args, **kwargs)
        finally:
            _made_as.reset(token)

    return wrapper


def _label(kind: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the type of a backup. Nova accepts any text; one that is no valid label is omitted."""
    text = (arguments.get("extra_properties") or {}).get("backup_type")
    is_label = kind == model.BACKUP and validation.is_word(text, validation.LABEL_LENGTH)
    return text if is_label else None


def _send_instance_headers(make_client: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``make_client``, so that clients send the instance headers and check the response."""

    @functools.wraps(make_client)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        client = carry_tuple(make_client(*args, **kwargs))
        client.http_client.post = _check_response(client.http_client.post)
        return client

    return wrapper


def _check_response(post: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(post)
    def wrapper(url: str, *args: Any, **kwargs: Any) -> Any:
        response, body = post(url, *args, **kwargs)
        is_sent = headers.INSTALLATION_UUID in TupleHeaders()
        if url == CREATION and is_sent and headers.RECORDED not in response.headers:
            _warn_without_filter()
        return response, body

    return wrapper


@functools.cache
def _warn_without_filter() -> None:
    """Warn once per process."""
    LOG.warning(
        "Glance does not confirm that it recorded the server of an image: related-images is not "
        "in its pipeline, and image lists of a server will be empty"
    )


def _warn_without_service_token() -> None:
    from nova.conf import CONF

    if not CONF.service_user.send_service_user_token:
        LOG.warning(
            "[service_user] send_service_user_token is false: images are recorded only if the "
            "account in [keystone_authtoken], whose token keystonemiddleware sends to the image "
            "service, has a recording role there; nova-compute and nova-conductor send no "
            "service token"
        )
