"""A paste filter for nova-api: every image that this Nova creates is created with the tuple.

    [filter:related-images]
    paste.filter_factory = related_images.integrations.nova:filter_factory
    installation_uuid = …

It stands before ``osapi_compute_app_v21``, and is in the way of no request: when it is loaded it
wraps the three functions of Nova through which images are created, and the one of glanceclient that
makes errors of answers, after it has made sure that they are the ones it knows. No file of Nova or
glanceclient is edited.
"""

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
    """A function of Nova as this module knows it: where it is, and the names of its arguments."""

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
MAKE_CLIENT: Final = PatchTarget(
    "nova.image.glance",
    "_glanceclient_from_endpoint",
    ("context", "endpoint", "version"),
)
MAKE_ERROR: Final = PatchTarget("glanceclient.exc", "from_response", ("response", "body"))

_installed: list[str] = []
"""The installation for which Nova's functions are wrapped in this process."""


def filter_factory(
    global_conf: Mapping[str, str] | None, **local_conf: str
) -> Callable[[App], App]:
    """Paste's ``filter_factory``; the one option is ``installation_uuid``.

    :raises ConfigurationError: if the option is missing, malformed or not the only one
    :raises NovaUnexpected: if this Nova is not as it must be
    """
    unknown = set(local_conf) - {OPTION}
    if unknown or OPTION not in local_conf:
        raise ConfigurationError(
            f"the filter of nova-api needs the option {OPTION} and knows no other, "
            f"but is given: {', '.join(sorted(local_conf)) or 'none'}"
        )
    install(local_conf[OPTION], answers_users=True)
    _warn_without_service_token()
    return lambda app: app


def install(installation_uuid: str, *, answers_users: bool = False) -> None:
    """Let every image that this process creates through Nova's functions carry the tuple.

    The same again changes nothing: Nova loads a filter once for each of its pipelines.

    :param answers_users: the process is nova-api, which tells its users why Glance refuses an image
    :raises BadInput: if the UUID is malformed
    :raises ConfigurationError: if it was installed for another installation
    :raises NovaUnexpected: if this Nova is not as it must be
    """
    uuid = validation.installation_uuid(installation_uuid.strip())
    if _installed == [uuid]:
        return
    if _installed:
        raise ConfigurationError(
            f"this process speaks for the installation {_installed[0]} and cannot for {uuid} too"
        )
    wrappers: list[tuple[PatchTarget, Callable[[Any], Any]]] = [
        (CREATE_IMAGE, functools.partial(_speaking, uuid)),
        (SNAPSHOT_VOLUMES, functools.partial(_speaking, uuid)),
        (MAKE_CLIENT, _carrying),
    ]
    if answers_users:
        wrappers += [
            (CREATE_IMAGE, nova_errors.telling),
            (SNAPSHOT_VOLUMES, nova_errors.telling),
            (MAKE_ERROR, nova_errors.noting),
        ]
    for seam, _ in wrappers:
        _find(seam)
    for seam, wrapper in wrappers:
        owner, name, function = _find(seam)
        setattr(owner, name, wrapper(function))
    _installed.append(uuid)
    LOG.info("images are created for instances of the installation %s", uuid)


def _find(seam: PatchTarget) -> tuple[Any, str, Callable[..., Any]]:
    """What holds the function, its name there, and the function itself."""
    *owners, name = seam.path.split(".")
    try:
        owner = functools.reduce(getattr, owners, importlib.import_module(seam.module))
        function = getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise _unexpected(f"has no {seam} ({error})") from error
    arguments = tuple(inspect.signature(function).parameters)
    if arguments != seam.arguments:
        known, there = ", ".join(seam.arguments), ", ".join(arguments)
        raise _unexpected(f"has {seam}({there}), known is {seam}({known})")
    return owner, name, function


def _unexpected(difference: str) -> NovaUnexpected:
    version = importlib.metadata.version("nova")
    return NovaUnexpected(
        f"Nova {version} {difference}; take a version of related-images that was tried with this "
        "Nova, or take the filter out and run `related-images listen` instead"
    )


def _speaking(installation_uuid: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, speaking for the instance that it is given."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def speak(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        server = given["instance"]
        instance = InstanceRef(installation_uuid, server.uuid)
        kind = given.get("image_type", model.SNAPSHOT)
        with for_instance(
            instance, kind=kind, label=_label(kind, given), project_id=server.project_id
        ):
            return function(*args, **kwargs)

    return speak


def _label(kind: str, given: Mapping[str, Any]) -> str | None:
    """The type of a backup. Nova takes any text for it; what cannot be a label is left out."""
    text = (given.get("extra_properties") or {}).get("backup_type")
    is_label = kind == model.BACKUP and validation.is_word(text, validation.LABEL_LENGTH)
    return text if is_label else None


def _carrying(make_client: Callable[..., Any]) -> Callable[..., Any]:
    """``make_client``, whose clients send the tuple and look for its acknowledgement."""

    @functools.wraps(make_client)
    def make(*args: Any, **kwargs: Any) -> Any:
        client = carry_tuple(make_client(*args, **kwargs))
        client.http_client.post = _watched(client.http_client.post)
        return client

    return make


def _watched(post: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(post)
    def watch(url: str, *args: Any, **kwargs: Any) -> Any:
        response, body = post(url, *args, **kwargs)
        carried = headers.INSTALLATION_UUID in TupleHeaders()
        if url == CREATION and carried and headers.RECORDED not in response.headers:
            _warn_without_filter()
        return response, body

    return watch


@functools.cache
def _warn_without_filter() -> None:
    """Warn once in this process."""
    LOG.warning(
        "the image service does not say that it recorded whose image was created: "
        "related-images is not in its pipeline, and no image will be found by its instance"
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
