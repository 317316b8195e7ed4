"""Record relations with the token of the stack's user, or with Heat's service token as well."""

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

Result = TypeVar("Result")

GROUP: Final = "related_images"
"""The section of ``heat.conf``."""

OPTIONS: Final = (
    cfg.StrOpt(
        "installation_uuid",
        help="UUID of the Nova deployment of the servers in stacks; needed for templates with a "
        "server.",
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
    """Neither the stack's user nor Heat is permitted to record the relation."""

    code = "heat.relation-refused"
    title = "The relation of the image could not be recorded"


@dataclass(frozen=True)
class Recorder:
    """Send requests that need a recording role, with Heat's service token if necessary.

    Heat's account may record any relation. So a check precedes every request with its token: the
    relation must be true, and the stack's user must be allowed to see that.

    :ivar adapter: the adapter of the stack's user for Glance
    """

    adapter: Adapter

    def record(
        self, send: Callable[[Adapter, str | None], Result], authorize: Callable[[], str | None]
    ) -> Result:
        """Send a request as the user, and again with Heat's service token if that is refused.

        :param send: sends the request; takes the adapter, and the project of the server if known
        :param authorize: checks the relation before the request with Heat's token; returns the
            project of the server if known, or raises :exc:`RecordingRefused`
        :returns: the result of ``send``
        :raises RecordingRefused: if neither the user nor Heat is permitted to record the relation
        """
        try:
            return send(self.adapter, None)
        except Forbidden as error:
            service = _service(error)
        project = authorize()
        try:
            return send(self._adapter_with(service), project)
        except Forbidden as error:
            advice = _ADVICE_FOR_HEAT.get(str(error.code))
            if advice is None:
                raise
            raise RecordingRefused(f"{error}; {advice}") from error

    def _adapter_with(self, service: BaseAuthPlugin) -> Adapter:
        """Return an adapter that sends the user's token and Heat's service token."""
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


_SECTION: Final = f"[{GROUP}] of heat.conf"
_ADVICE: Final = {
    RecordingForbidden.code: (
        "the stack's user has no recording role and Heat has no account that has one: set "
        f"auth_type and the options that it needs in {_SECTION}"
    ),
    InstallationBound.code: (
        f"set auth_type and the options that it needs in {_SECTION} to the account of one "
        "of these service users, or ask an administrator to register the installation without any"
    ),
}
"""The next step if Heat has no account."""
_ADVICE_FOR_HEAT: Final = {
    RecordingForbidden.code: f"assign a recording role to the account in {_SECTION}",
    InstallationBound.code: (
        f"configure the account of one of these service users in {_SECTION}, or ask an "
        "administrator to register the installation without any"
    ),
}
"""The next step if Heat's account is refused."""


def _service(refusal: Forbidden) -> BaseAuthPlugin:
    """Return Heat's account, if it may succeed where the user is refused.

    :raises RecordingRefused: if ``heat.conf`` has no account
    """
    code = str(refusal.code)
    if code not in _ADVICE:
        raise refusal
    service: BaseAuthPlugin | None = loading.load_auth_from_conf_options(cfg.CONF, GROUP)
    if service is None:
        raise RecordingRefused(f"{refusal}; {_ADVICE[code]}") from refusal
    return service


def _authenticate(service: BaseAuthPlugin, adapter: Adapter) -> None:
    """Get a token for Heat's account now, so that an error is not attributed to Glance."""
    try:
        service.get_token(adapter.session)
    except (keystone.http.Unauthorized, keystone.AuthorizationFailure) as error:
        raise RecordingRefused(
            f"Keystone refuses the account in {_SECTION}: {error}; nothing was recorded; an "
            "operator must check its auth_url, user, password and project"
        ) from error
    except keystone.ClientException as error:
        raise RecordingRefused(
            f"Keystone does not issue a token for the account in {_SECTION}: {error}; nothing "
            "was recorded; an operator must check auth_url, and whether Keystone is available"
        ) from error


def option(name: str) -> Any:
    """Return the value of an option in ``[related_images]`` of ``heat.conf``.

    :param name: name of the option
    """
    return cfg.CONF[GROUP][name]
