"""A replacement for keystonemiddleware in development, which accepts every token."""

import configparser
import ipaddress
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from related_images.errors import (
    ConfigurationError,
    Forbidden,
    NotIdentified,
    RelatedImagesError,
)
from related_images.protocol import schemas

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ALLOW_REMOTE = "RELATED_IMAGES_DEVELOPMENT_IDENTITY_ALLOW_REMOTE"
"""The environment variable that, set to ``1``, allows callers from other hosts."""

TOKEN_FORM = "user:project:role,role"
"""The format of a token."""

_TOKEN = re.compile(r"([\w.@~-]{1,64}):([\w.@~-]{1,64}):([\w.@~-]+(?:,[\w.@~-]+)*)", re.ASCII)
_DOMAIN = "default"
_IMPLIED = {"admin": "manager", "manager": "member", "member": "reader"}

# By prefix, not by list: a later filter may read a header that no list names.
_IDENTITY_HEADERS = re.compile(
    r"HTTP_(?:X_(?:SERVICE_(?!TOKEN$)|USER|PROJECT|TENANT|DOMAIN|ROLE|IDENTITY_|IS_ADMIN)"
    r"|OPENSTACK_SYSTEM_SCOPE)"
)
_AUTHTOKEN_KEYS = ("keystone.token_auth", "keystone.token_info")
"""The keys that ``authtoken`` sets in the WSGI environment."""


class DevelopmentIdentity:
    """WSGI filter that takes the identity of the caller from the token, without a check.

    Headers in: ``X-Auth-Token: user:project:role,role`` and optionally ``X-Service-Token`` in the
    same format. Characters may be percent-encoded. Each part is both ID and name. As Keystone
    bootstraps them, ``admin`` implies ``manager``, which implies ``member``, which implies
    ``reader``.

    Headers out: the ``X-…`` and ``X-Service-…`` headers that keystonemiddleware's ``authtoken``
    sets. The filter removes such headers from the request first.

    Responses: 401 without a well-formed token, 403 to another host unless ``allow_remote``, and 500
    if ``authtoken`` has already processed the request.

    :param app: the next WSGI application
    :param allow_remote: whether callers from other hosts are allowed
    """

    def __init__(self, app: "WSGIApplication", *, allow_remote: bool = False) -> None:
        self._app = app
        self._allow_remote = allow_remote

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        try:
            self._check_request(environ)
            identity = _identity(environ)
        except NotIdentified as error:
            return _refuse(environ, start_response, HTTPStatus.UNAUTHORIZED, error)
        except Forbidden as error:
            return _refuse(environ, start_response, HTTPStatus.FORBIDDEN, error)
        except ConfigurationError as error:
            return _refuse(environ, start_response, HTTPStatus.INTERNAL_SERVER_ERROR, error)
        for name in [name for name in environ if _IDENTITY_HEADERS.match(name)]:
            del environ[name]
        environ.update(identity)
        return self._app(environ, start_response)

    def _check_request(self, environ: "WSGIEnvironment") -> None:
        if any(key in environ for key in _AUTHTOKEN_KEYS):
            raise ConfigurationError(_WITH_AUTHTOKEN.format(where="this pipeline"))
        if not (self._allow_remote or _is_loopback(environ.get("REMOTE_ADDR", ""))):
            raise Forbidden(
                "the development identity filter accepts every token, and therefore only callers "
                "on the loopback interface; use keystonemiddleware's authtoken for other callers"
            )


def development_identity_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[["WSGIApplication"], DevelopmentIdentity]:
    """Return the filter for PasteDeploy, a ``filter_factory`` without options.

    :param global_conf: the defaults of the paste file
    :param local_conf: the options in the section of the filter; there are none
    :returns: a function that wraps a WSGI application
    :raises ConfigurationError: if there is an option, or if a pipeline of the paste file has both
        this filter and keystonemiddleware's ``authtoken``
    """
    if local_conf:
        raise ConfigurationError(
            f"the development identity filter has no options; remove {', '.join(local_conf)}"
        )
    if "__file__" in global_conf:
        _check_pipelines(global_conf["__file__"])
    allow_remote = os.environ.get(ALLOW_REMOTE) == "1"
    return lambda app: DevelopmentIdentity(app, allow_remote=allow_remote)


@dataclass(frozen=True)
class _Token:
    user: str
    project: str
    roles: str

    def as_environ(self, prefix: str) -> dict[str, str]:
        headers = {
            "IDENTITY_STATUS": "Confirmed",
            "USER_ID": self.user,
            "USER_NAME": self.user,
            "USER_DOMAIN_ID": _DOMAIN,
            "USER_DOMAIN_NAME": _DOMAIN,
            "PROJECT_ID": self.project,
            "PROJECT_NAME": self.project,
            "PROJECT_DOMAIN_ID": _DOMAIN,
            "PROJECT_DOMAIN_NAME": _DOMAIN,
            "ROLES": ",".join(_with_implied(self.roles.split(","))),
        }
        return {prefix + name: text for name, text in headers.items()}


def _identity(environ: "WSGIEnvironment") -> dict[str, str]:
    identity = _parse("X-Auth-Token", environ.get("HTTP_X_AUTH_TOKEN", "")).as_environ("HTTP_X_")
    if "HTTP_X_SERVICE_TOKEN" in environ:
        service = _parse("X-Service-Token", environ["HTTP_X_SERVICE_TOKEN"])
        identity |= service.as_environ("HTTP_X_SERVICE_")
    return identity


def _parse(header: str, text: str) -> _Token:
    match = _TOKEN.fullmatch(unquote(text))
    if not match:
        raise NotIdentified(
            f"{header} {'is malformed' if text else 'is missing'}; the development identity filter "
            f"needs the format {TOKEN_FORM}, such as `{header}: alice:demo:member,reader`"
        )
    return _Token(*match.groups())


def _with_implied(roles: list[str]) -> list[str]:
    result = list(dict.fromkeys(roles))
    for role in result:  # the loop also visits appended roles
        implied = _IMPLIED.get(role)
        if implied and implied not in result:
            result.append(implied)
    return result


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _refuse(
    environ: "WSGIEnvironment",
    start_response: "StartResponse",
    status: HTTPStatus,
    error: RelatedImagesError,
) -> Iterable[bytes]:
    fault = schemas.fault(status.value, error, environ.get("openstack.request_id"))
    body = json.dumps(fault).encode()
    headers = [
        ("Content-Type", "application/json; charset=UTF-8"),
        ("Content-Length", str(len(body))),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", f'Development form="{TOKEN_FORM}"'))
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


_WITH_AUTHTOKEN = (
    "{where} has both keystonemiddleware's authtoken and the development identity filter, which "
    "accepts every token; remove the development identity filter"
)


def _check_pipelines(path: str) -> None:
    parser = configparser.RawConfigParser(strict=False, default_section="DEFAULT")
    parser.read(path, encoding="utf-8")
    for section in parser.sections():
        for option, value in parser.items(section):
            filters = [_resolve(word, parser) for word in value.split()]
            if any("keystonemiddleware" in text for text in filters) and any(
                "development_identity" in text for text in filters
            ):
                where = f"{option!r} of [{section}] in {path}"
                raise ConfigurationError(_WITH_AUTHTOKEN.format(where=where))


def _resolve(name: str, parser: Any, depth: int = 8) -> str:
    """Return the option values of a filter, with those of the sections that ``use`` refers to."""
    section = f"filter:{name}"
    if not depth or not parser.has_section(section):
        return name
    return " ".join(_resolve(value, parser, depth - 1) for _, value in parser.items(section))
