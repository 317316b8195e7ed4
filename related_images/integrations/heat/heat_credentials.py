"""Recording relations for a stack: by its user's own right, or by what Heat vouches for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from keystoneauth1 import exceptions as keystone
from keystoneauth1 import loading
from keystoneauth1.adapter import Adapter
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.service_token import ServiceTokenAuthWrapper
from oslo_config import cfg

from related_images.client import Forbidden
from related_images.client.errors import ClientError
from related_images.errors import InstallationBound, RecordingForbidden

Done = TypeVar("Done")

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


class RecordingRefused(ClientError):
    """Neither the user nor Heat may say this."""

    code = "heat.relation-refused"
    title = "The relation of the image could not be recorded"


@dataclass(frozen=True)
class Recorder:
    """Records by the rights of the stack's user, and where those do not suffice by Heat's own.

    Heat's identity may say anything of any instance. So it speaks only where ``vouch`` finds that
    it is true, and that the user may say it.

    :ivar adapter: the user's, for Glance
    """

    adapter: Adapter

    def record(
        self, deed: Callable[[Adapter, str | None], Done], vouch: Callable[[], str | None]
    ) -> Done:
        """Do what records something.

        :param deed: takes the adapter with which it is to ask, and the instance's project if known
        :param vouch: gives the instance's project if it is known, or raises :exc:`RecordingRefused`
        :raises RecordingRefused: if neither may record it
        """
        try:
            return deed(self.adapter, None)
        except Forbidden as error:
            service = _service(error)
        project = vouch()
        try:
            return deed(self._vouching(service), project)
        except Forbidden as error:
            advice = _ADVICE_FOR_HEAT.get(str(error.code))
            if advice is None:
                raise
            raise RecordingRefused(f"{error}; {advice}") from error

    def _vouching(self, service: BaseAuthPlugin) -> Adapter:
        """The adapter with Heat's service token: the user stays the one who asks."""
        adapter = self.adapter
        _authenticate(service, adapter)
        user: Any = adapter.auth or adapter.session.auth
        return Adapter(
            adapter.session,
            auth=ServiceTokenAuthWrapper(user, service),
            service_type=adapter.service_type,
            interface=adapter.interface,
            region_name=adapter.region_name,
            connect_retries=adapter.connect_retries,
        )


_IDENTITY: Final = f"[{GROUP}] of heat.conf"
_ADVICE: Final = {
    RecordingForbidden.code: (
        "the stack's user has no recording role and Heat has no identity that could vouch for it: "
        f"set auth_type and what it needs under {_IDENTITY}"
    ),
    InstallationBound.code: (
        f"set auth_type and what it needs under {_IDENTITY} to that service user, or have an "
        "administrator register the installation without one"
    ),
}
"""What the deployment lacks where it has no identity of Heat."""
_ADVICE_FOR_HEAT: Final = {
    RecordingForbidden.code: f"give a recording role to the identity that {_IDENTITY} names",
    InstallationBound.code: (
        f"have {_IDENTITY} name that service user, or have an administrator register the "
        "installation without one"
    ),
}


def _service(refusal: Forbidden) -> BaseAuthPlugin:
    """The identity that may record what the user may not.

    :raises RecordingRefused: if there is none
    """
    code = str(refusal.code)
    if code not in _ADVICE:
        raise refusal
    service: BaseAuthPlugin | None = loading.load_auth_from_conf_options(cfg.CONF, GROUP)
    if service is None:
        raise RecordingRefused(f"{refusal}; {_ADVICE[code]}") from refusal
    return service


def _authenticate(service: BaseAuthPlugin, adapter: Adapter) -> None:
    """Have Heat's identity authenticate, so that a failure is not taken for Glance's."""
    try:
        service.get_token(adapter.session)
    except (keystone.http.Unauthorized, keystone.AuthorizationFailure) as error:
        raise RecordingRefused(
            f"Keystone does not accept the identity that {_IDENTITY} names: {error}; nothing was "
            "recorded; an operator must check its auth_url, user, password and project there"
        ) from error
    except keystone.ClientException as error:
        raise RecordingRefused(
            f"Keystone cannot be asked for the identity that {_IDENTITY} names: {error}; nothing "
            "was recorded; an operator must check auth_url there, and whether Keystone answers"
        ) from error


def option(name: str) -> Any:
    """An option of ``[related_images]``."""
    return cfg.CONF[GROUP][name]
