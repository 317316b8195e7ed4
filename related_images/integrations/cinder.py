"""A paste filter for cinder-api, which reports images and volumes to the filter in Glance.

    [filter:related-images]
    paste.filter_factory = related_images.integrations.cinder:filter_factory
    installation_uuid = …

When Cinder creates an image of a volume, the request has the headers of the volume. When Cinder
creates a volume, a volume snapshot or a backup, the filter reports what it is made from: see
:mod:`.cinder_origins`.

Its place in the pipeline is before ``apiv3``. Requests pass unchanged. When it is loaded, it
patches functions of Cinder, after it has checked their names and arguments. No file of Cinder is
changed.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from related_images import model, validation
from related_images.client import InstanceRef, TupleHeaders, for_instance
from related_images.errors import CinderUnexpected, ConfigurationError
from related_images.integrations import cinder_origins
from related_images.integrations.patching import Patcher, PatchTarget
from related_images.integrations.reporting import (
    Reports,
    Service,
    begin_with_requests,
    check_response,
)

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

LOG = logging.getLogger(__name__)

OPTION: Final = "installation_uuid"

CINDER: Final = Patcher("Cinder", CinderUnexpected)

UPLOAD: Final = PatchTarget(
    "cinder.volume.api",
    "API.copy_volume_to_image",
    ("self", "context", "volume", "metadata", "force"),
)
MAKE_CLIENT: Final = PatchTarget(
    "cinder.image.glance",
    "_create_glance_client",
    ("context", "netloc", "use_ssl"),
    optional="privileged_user",  # since Cinder 27
)
FIND_GLANCE: Final = PatchTarget("cinder.image.glance", "get_api_servers", ("context",))
SERVICE_SESSION: Final = PatchTarget("cinder.service_auth", "get_service_session", ())
CREATE_VOLUME: Final = PatchTarget(
    "cinder.volume.api",
    "API.create",
    (
        *("self", "context", "size", "name", "description", "snapshot", "image_id", "volume_type"),
        *("metadata", "availability_zone", "source_volume", "scheduler_hints", "source_replica"),
        *("consistencygroup", "cgsnapshot", "source_cg", "group", "group_snapshot"),
        *("source_group", "backup"),
    ),
)
CREATE_ROW: Final = PatchTarget(
    "cinder.volume.flows.api.create_volume",
    "EntryCreateTask.execute",
    ("self", "context", "optional_args", "kwargs"),
)
REIMAGE: Final = PatchTarget(
    "cinder.volume.api",
    "API.reimage",
    ("self", "context", "volume", "image_id", "reimage_reserved", "image_snap"),
)
CREATE_SNAPSHOT: Final = PatchTarget(
    "cinder.volume.api",
    "API.create_snapshot_in_db",
    (
        *("self", "context", "volume", "name", "description", "force", "metadata"),
        *("cgsnapshot_id", "commit_quota", "group_snapshot_id", "allow_in_use"),
    ),
)
CREATE_BACKUP: Final = PatchTarget(
    "cinder.backup.api",
    "API.create",
    (
        *("self", "context", "name", "description", "volume_id", "container", "incremental"),
        *("availability_zone", "force", "snapshot_id", "metadata"),
    ),
)
RESTORE: Final = PatchTarget(
    "cinder.backup.api",
    "API.restore",
    ("self", "context", "backup_id", "volume_id", "name"),
)

_installed: list[Reports] = []
"""What sends the reports of this process; empty if it is not patched."""


def filter_factory(
    global_conf: Mapping[str, str] | None, **local_conf: str
) -> Callable[["WSGIApplication"], "WSGIApplication"]:
    """Patch Cinder, and return a filter for PasteDeploy that starts the heartbeats.

    :param global_conf: the defaults of the paste file
    :param local_conf: the option of the filter, ``installation_uuid``
    :returns: a function that takes and returns a WSGI application
    :raises BadInput: if the UUID is malformed
    :raises ConfigurationError: if the option is missing, or an unknown one is present
    :raises CinderUnexpected: if a function to patch is missing or has other arguments
    """
    if set(local_conf) != {OPTION}:
        raise ConfigurationError(
            f"the filter of cinder-api needs the option {OPTION} and has no other, but the section "
            f"has: {', '.join(sorted(local_conf)) or 'none'}"
        )
    reports = install(local_conf[OPTION])
    return functools.partial(begin_with_requests, reports)


def install(installation_uuid: str) -> Reports:
    """Patch the functions of Cinder in this process.

    Another call with the same UUID does nothing, because Cinder loads a filter once per pipeline.

    :param installation_uuid: the UUID of this Cinder deployment
    :returns: what sends the reports of this process
    :raises BadInput: if the UUID is malformed
    :raises ConfigurationError: if the process is patched for another installation
    :raises CinderUnexpected: if a function to patch is missing or has other arguments
    """
    uuid = validation.installation_uuid(installation_uuid.strip())
    for reports in _installed:
        if reports.installation_uuid != uuid:
            raise ConfigurationError(
                f"this process reports volumes of the installation {reports.installation_uuid} "
                f"and cannot report those of {uuid}; use one {OPTION} in all pipelines"
            )
        return reports
    reports = Reports(CINDER_API, uuid, has_service_user=_sends_service_token())
    wrap = functools.partial
    CINDER.patch(
        [
            (UPLOAD, wrap(_set_volume, uuid)),
            (MAKE_CLIENT, _send_volume_headers),
            (CREATE_VOLUME, wrap(cinder_origins.report_creation, reports)),
            (CREATE_ROW, cinder_origins.report_new_row),
            (REIMAGE, wrap(cinder_origins.report_reimage, reports)),
            (CREATE_SNAPSHOT, wrap(cinder_origins.report_snapshot, reports)),
            (CREATE_BACKUP, wrap(cinder_origins.report_backup, reports)),
            (RESTORE, wrap(cinder_origins.report_restoration, reports)),
        ],
        used=(FIND_GLANCE, SERVICE_SESSION),
    )
    _installed.append(reports)
    _warn_without_service_token()
    LOG.info("reporting volumes of the installation %s", uuid)
    return reports


def _set_volume(installation_uuid: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that creates an image of a volume, so that its request is for the volume.

    :param function: ``API.copy_volume_to_image``
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        volume = signature.bind(*args, **kwargs).arguments["volume"]
        ref = InstanceRef(installation_uuid, volume.id, model.VOLUME)
        with for_instance(ref, kind=model.SNAPSHOT, project_id=volume.project_id):
            return function(*args, **kwargs)

    return wrapper


def _send_volume_headers(make_client: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``make_client``, so that the POST requests of clients have the headers of the volume.

    Cinder assigns the additional headers of a client anew, so they cannot be used for this.
    """

    @functools.wraps(make_client)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        client = make_client(*args, **kwargs)
        client.http_client.post = check_response(_with_headers(client.http_client.post))
        return client

    return wrapper


def _with_headers(post: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(post)
    def wrapper(url: str, *args: Any, **kwargs: Any) -> Any:
        given = {**(kwargs.pop("headers", None) or {}), **TupleHeaders()}
        return post(url, *args, headers=given, **kwargs)

    return wrapper


def _sends_service_token() -> bool:
    from cinder.service_auth import CONF

    return bool(CONF.service_user.send_service_user_token)


def _warn_without_service_token() -> None:
    if not _sends_service_token():
        LOG.warning(
            "[service_user] send_service_user_token is false: images and volumes are recorded only "
            "for users with a recording role in the image service; without heartbeats, the sources "
            "of volumes count as unknown"
        )


def _client(context: Any) -> Any:
    """Return a glanceclient with the tokens that Cinder sends with its requests to Glance."""
    from cinder.image import glance

    netloc, use_ssl = next(glance.get_api_servers(context))
    return glance._create_glance_client(context, netloc, use_ssl)


def _service_client() -> Any:
    """Return an adapter of the image service with the token of the service user."""
    from cinder import context, service_auth
    from cinder.image import glance
    from keystoneauth1.adapter import Adapter

    netloc, use_ssl = next(glance.get_api_servers(context.get_admin_context()))
    endpoint = f"{'https' if use_ssl else 'http'}://{netloc}"
    session = service_auth.get_service_session()
    return Adapter(session, service_type="image", endpoint_override=endpoint)


CINDER_API: Final = Service("cinder-api", "the source of a volume", _client, _service_client)
