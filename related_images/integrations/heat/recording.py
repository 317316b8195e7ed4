"""Recording relations for a stack, with the rights that the deployment gives to Heat."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from keystoneauth1 import loading
from keystoneauth1.adapter import Adapter
from keystoneauth1.service_token import ServiceTokenAuthWrapper
from oslo_config import cfg

from related_images.client import AccessDenied
from related_images.client.errors import ClientError
from related_images.errors import RecordingForbidden

GROUP: Final = "related_images"
"""The section of ``heat.conf``."""

OPTIONS: Final = (
    cfg.StrOpt(
        "installation_uuid",
        help="UUID of the Nova deployment whose servers the stacks have; needed where a template "
        "names a server.",
    ),
    cfg.IntOpt(
        "property_quota",
        default=128,
        min=1,
        help="How many properties an image may have: Glance's image_property_quota.",
    ),
)

cfg.CONF.register_opts(OPTIONS, GROUP)
loading.register_auth_conf_options(cfg.CONF, GROUP)


class RelationRefused(ClientError):
    """Neither the stack's user nor a configured identity may record relations."""

    code = "heat.relation-refused"
    title = "The relation of the image could not be recorded"


def recording_adapter(adapter: Adapter) -> Adapter:
    """``adapter``, with the service token of the identity in ``[related_images]`` if there is one.

    The stack's user stays the one who asks; the service vouches for what is recorded.
    """
    service = loading.load_auth_from_conf_options(cfg.CONF, GROUP)
    if service is None:
        return adapter
    user: Any = adapter.auth or adapter.session.auth
    return Adapter(
        adapter.session,
        auth=ServiceTokenAuthWrapper(user, service),
        service_type=adapter.service_type,
        interface=adapter.interface,
        region_name=adapter.region_name,
        connect_retries=adapter.connect_retries,
    )


@contextmanager
def telling_who_may_record() -> Iterator[None]:
    """Have a refusal say what the deployment lacks.

    :raises RelationRefused: if the caller may not record
    """
    try:
        yield
    except AccessDenied as error:
        if error.code != RecordingForbidden.code:
            raise
        raise RelationRefused(f"{error.args[0]}; {_missing()}") from error


def _missing() -> str:
    if option("auth_type"):
        return "give a recording role to the identity that [related_images] of heat.conf names"
    return (
        "the stack's user has no recording role and Heat has no identity that could vouch for it: "
        "set auth_type and what it needs under [related_images] of heat.conf"
    )


def option(name: str) -> Any:
    """An option of ``[related_images]``."""
    return cfg.CONF[GROUP][name]
