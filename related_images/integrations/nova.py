"""A paste filter for nova-api, which reports images and servers to the filter in Glance.

    [filter:related-images]
    paste.filter_factory = related_images.integrations.nova:filter_factory
    installation_uuid = …
    volume_installation_uuid = …

When Nova creates an image, the request has the instance headers. When Nova creates or rebuilds a
server, the filter reports what the server is started from: see :mod:`.nova_starts`.

Its place in the pipeline is before ``osapi_compute_app_v21``. Requests pass unchanged. When it is
loaded, it patches functions of Nova, and a function of glanceclient that converts responses to
exceptions. It first checks the names and the arguments of these functions. No file of Nova or
glanceclient is changed.
"""

import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from related_images import model, validation
from related_images.client import (
    InstanceRef,
    carry_tuple,
    for_instance,
)
from related_images.errors import ConfigurationError, NovaUnexpected
from related_images.integrations import (
    nova_backups,
    nova_errors,
    nova_starts,
    nova_volume_snapshots,
)
from related_images.integrations.nova_reports import nova_reports
from related_images.integrations.patching import Patcher, PatchTarget, Wrapper
from related_images.integrations.reporting import Reports, begin_with_requests, check_response

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

LOG = logging.getLogger(__name__)

OPTION: Final = "installation_uuid"
VOLUME_OPTION: Final = "volume_installation_uuid"


NOVA: Final = Patcher("Nova", NovaUnexpected)

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
PREPARE_SERVERS: Final = PatchTarget(
    "nova.compute.api",
    "API._provision_instances",
    (
        *("self", "context", "flavor", "min_count", "max_count", "base_options", "boot_meta"),
        *("security_groups", "block_device_mapping", "instance_group"),
        *("check_server_group_quota", "filter_properties", "key_pair", "tags", "trusted_certs"),
        *("supports_multiattach", "network_metadata", "requested_host"),
        "requested_hypervisor_hostname",
    ),
    optional="shutdown_terminate",  # until Nova 33
)
REBUILD: Final = PatchTarget(
    "nova.compute.api",
    "API.rebuild",
    (
        *("self", "context", "instance", "image_href", "admin_password", "files_to_inject"),
        *("reimage_boot_volume", "kwargs"),
    ),
)
LAST_CHECK_OF_REBUILD: Final = PatchTarget(
    "nova.compute.api",
    "API._inherit_properties_from_image",
    ("self", "image", "auto_disk_config"),
)
DELETE_EARLY: Final = PatchTarget(
    "nova.compute.api", "API._attempt_delete_of_buildrequest", ("self", "context", "instance")
)
# the arguments of these three are those of the decorators in Nova
SNAPSHOT_VOLUME: Final = PatchTarget(
    "nova.volume.cinder", "API.create_snapshot_force", ("self", "ctx", "res_id", "args", "kwargs")
)
GET_SNAPSHOT: Final = PatchTarget(
    "nova.volume.cinder", "API.get_snapshot", ("self", "ctx", "snapshot_id", "args", "kwargs")
)
DELETE_SNAPSHOT: Final = PatchTarget(
    "nova.volume.cinder", "API.delete_snapshot", ("self", "ctx", "snapshot_id", "args", "kwargs")
)
CLEAN_UP_SERVERS: Final = PatchTarget(
    "nova.compute.api", "API._cleanup_build_artifacts", ("instances", "instances_to_build")
)
FIND_GLANCE: Final = PatchTarget("nova.image.glance", "generate_glance_url", ("context",))
MAKE_ERROR: Final = PatchTarget("glanceclient.exc", "from_response", ("response", "body"))

_made_as: contextvars.ContextVar[str | None] = contextvars.ContextVar("made_as", default=None)
"""The kind of the images that the current action of Nova creates, if Nova does not say it."""


@dataclass(frozen=True, slots=True)
class _Installed:
    """The installations for which this process is patched.

    :ivar uuids: the installations of Nova and of its volumes
    :ivar reports: sends the reports of nova-api; ``None`` in another process
    """

    uuids: tuple[str, str | None]
    reports: Reports | None


_installed: list[_Installed] = []
"""The patch of this process; empty if it is not patched."""


def filter_factory(
    global_conf: Mapping[str, str] | None, **local_conf: str
) -> Callable[["WSGIApplication"], "WSGIApplication"]:
    """Patch Nova, and return a filter for PasteDeploy that starts the heartbeats.

    :param global_conf: the defaults of the paste file
    :param local_conf: the options of the filter: ``installation_uuid``, and optionally
        ``volume_installation_uuid``, the Cinder with the root volumes of servers
    :returns: a function that takes and returns a WSGI application
    :raises BadInput: if a UUID is malformed
    :raises ConfigurationError: if the first option is missing, or an unknown one is present
    :raises NovaUnexpected: if a function to patch is missing or has other arguments
    """
    unknown = set(local_conf) - {OPTION, VOLUME_OPTION}
    if unknown or OPTION not in local_conf:
        raise ConfigurationError(
            f"the filter of nova-api needs the option {OPTION}, and has the option "
            f"{VOLUME_OPTION} and no other, but the section has: "
            f"{', '.join(sorted(local_conf)) or 'none'}"
        )
    reports = install(local_conf[OPTION], local_conf.get(VOLUME_OPTION), is_api=True)
    _warn_without_service_token()
    return functools.partial(begin_with_requests, reports)


def install(
    installation_uuid: str, volume_installation_uuid: str | None = None, *, is_api: bool = False
) -> Reports | None:
    """Patch the functions of Nova in this process, so that they send the instance headers.

    Another call with the same UUIDs does nothing, because Nova loads a filter once per pipeline.

    :param installation_uuid: the UUID of this Nova deployment
    :param volume_installation_uuid: the UUID of the Cinder deployment with the root volumes of
        servers; ``None`` if they are not reported
    :param is_api: whether the process is nova-api, which also reports starts of servers, and
        returns Glance's error to the user
    :returns: what sends the reports of nova-api; ``None`` for another process
    :raises BadInput: if a UUID is malformed
    :raises ConfigurationError: if the process is patched for other installations
    :raises NovaUnexpected: if a function to patch is missing or has other arguments
    """
    uuid, volume_uuid = validation.installation_uuid(installation_uuid.strip()), None
    if volume_installation_uuid is not None:
        volume_uuid = validation.installation_uuid(volume_installation_uuid.strip())
    if _installed:
        return _installed_before((uuid, volume_uuid))
    wrappers: list[tuple[PatchTarget, Wrapper]] = [
        (CREATE_IMAGE, functools.partial(_set_instance, uuid)),
        (SNAPSHOT_VOLUMES, functools.partial(_set_instance, uuid)),
        (SHELVE, _make_shelved),
        (MAKE_CLIENT, _send_instance_headers),
    ]
    reports = None
    if is_api:
        reports = nova_reports(uuid, has_service_user=_sends_service_token())
        report_creation = functools.partial(nova_starts.report_creation, reports, volume_uuid)
        wrappers += [
            (CREATE_IMAGE, nova_errors.raise_refusals),
            (SNAPSHOT_VOLUMES, nova_errors.raise_refusals),
            (SNAPSHOT_VOLUMES, functools.partial(nova_volume_snapshots.refuse_early, reports)),
            (SNAPSHOT_VOLUME, nova_volume_snapshots.note_volume_snapshot),
            (MAKE_ERROR, nova_errors.keep_refusals),
            (PREPARE_SERVERS, report_creation),
            (REBUILD, functools.partial(nova_starts.report_rebuild, reports)),
            (LAST_CHECK_OF_REBUILD, nova_starts.report_before_change),
            (DELETE_EARLY, functools.partial(nova_starts.report_early_deletion, reports)),
        ]
    NOVA.patch(wrappers, used=(CLEAN_UP_SERVERS, GET_SNAPSHOT, DELETE_SNAPSHOT, FIND_GLANCE))
    _installed.append(_Installed((uuid, volume_uuid), reports))
    LOG.info("sending the instance headers of the installation %s", uuid)
    return reports


def _installed_before(uuids: tuple[str, str | None]) -> Reports | None:
    """Return what the first call of :func:`install` returned.

    :raises ConfigurationError: if it had other arguments
    """
    (before,) = _installed
    for option, known, given in zip((OPTION, VOLUME_OPTION), before.uuids, uuids, strict=True):
        if known != given:
            raise ConfigurationError(
                f"this process sends the instance headers of the installation {known} and "
                f"cannot send those of {given}; use one {option} in all pipelines"
            )
    return before.reports


def _set_instance(installation_uuid: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that creates an image, so that requests in it are for its server."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        server = call.arguments["instance"]
        kind = _made_as.get() or call.arguments.get("image_type", model.SNAPSHOT)
        properties = call.arguments.get("extra_properties")
        kind, label, rest = nova_backups.take(kind, properties or {})
        if properties:
            call.arguments["extra_properties"] = rest
        instance = InstanceRef(installation_uuid, server.uuid)
        with for_instance(instance, kind=kind, label=label, project_id=server.project_id):
            return function(*call.args, **call.kwargs)

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


def _send_instance_headers(make_client: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``make_client``, so that clients send the instance headers and check the response."""

    @functools.wraps(make_client)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        client = carry_tuple(make_client(*args, **kwargs))
        client.http_client.post = check_response(client.http_client.post)
        return client

    return wrapper


def _sends_service_token() -> bool:
    from nova.conf import CONF

    return bool(CONF.service_user.send_service_user_token)


def _warn_without_service_token() -> None:
    if not _sends_service_token():
        LOG.warning(
            "[service_user] send_service_user_token is false: images and servers are recorded only "
            "if the account in [keystone_authtoken], whose token keystonemiddleware sends to the "
            "image service, has a recording role there; nova-compute and nova-conductor send no "
            "service token; without heartbeats, the starts of servers count as unknown"
        )
