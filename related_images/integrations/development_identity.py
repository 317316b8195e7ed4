"""A stand-in for Keystone on a developer's own machine: it believes every token."""

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
"""The environment variable that, as ``1``, lets callers from other machines in."""

TOKEN_FORM = "user:project:role,role"

_TOKEN = re.compile(r"([\w.@~-]{1,64}):([\w.@~-]{1,64}):([\w.@~-]+(?:,[\w.@~-]+)*)", re.ASCII)
_DOMAIN = "default"
_IMPLIED = {"admin": "manager", "manager": "member", "member": "reader"}

# By prefix, not by list: whatever a neighbour may come to read of these, no caller has sent it.
_CLAIMED = re.compile(
    r"HTTP_(?:X_(?:SERVICE_(?!TOKEN$)|USER|PROJECT|TENANT|DOMAIN|ROLE|IDENTITY_|IS_ADMIN)"
    r"|OPENSTACK_SYSTEM_SCOPE)"
)
_MARKS_OF_AUTHTOKEN = ("keystone.token_auth", "keystone.token_info")


class DevelopmentIdentity:
    """WSGI filter: a token says who the caller is, and is believed.

    In: ``X-Auth-Token: user:project:role,role``, and likewise ``X-Service-Token`` if there is one;
    percent-encoded characters are understood. The words are ids and names at once. As in a fresh
    Keystone, ``admin`` implies ``manager``, that ``member``, and that ``reader``.

    Out: the ``X-…`` and ``X-Service-…`` headers that keystonemiddleware's ``authtoken`` would set.
    Every such header that the caller sent is removed.

    Answers 401 without a well-formed token, 403 to another machine unless ``allow_remote``, and 500
    where ``authtoken`` has already judged the request.
    """

    def __init__(self, app: "WSGIApplication", *, allow_remote: bool = False) -> None:
        self._app = app
        self._allow_remote = allow_remote

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        try:
            self._refuse_strangers(environ)
            identity = _identity(environ)
        except NotIdentified as error:
            return _refuse(environ, start_response, HTTPStatus.UNAUTHORIZED, error)
        except Forbidden as error:
            return _refuse(environ, start_response, HTTPStatus.FORBIDDEN, error)
        except ConfigurationError as error:
            return _refuse(environ, start_response, HTTPStatus.INTERNAL_SERVER_ERROR, error)
        for name in [name for name in environ if _CLAIMED.match(name)]:
            del environ[name]
        environ.update(identity)
        return self._app(environ, start_response)

    def _refuse_strangers(self, environ: "WSGIEnvironment") -> None:
        if any(mark in environ for mark in _MARKS_OF_AUTHTOKEN):
            raise ConfigurationError(_BESIDE_AUTHTOKEN.format(where="this pipeline"))
        if not (self._allow_remote or _is_loopback(environ.get("REMOTE_ADDR", ""))):
            raise Forbidden(
                "the development identity filter believes every token and so answers callers on "
                "the loopback interface only; use keystonemiddleware's authtoken for others"
            )


def development_identity_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[["WSGIApplication"], DevelopmentIdentity]:
    """Paste's ``filter_factory``; there are no options.

    :raises ConfigurationError: if there is an option, or if a pipeline of the paste file has this
        filter and keystonemiddleware's ``authtoken``
    """
    if local_conf:
        raise ConfigurationError(
            f"the development identity filter has no options, but {', '.join(local_conf)} is given"
        )
    if "__file__" in global_conf:
        _refuse_beside_authtoken(global_conf["__file__"])
    allow_remote = os.environ.get(ALLOW_REMOTE) == "1"
    return lambda app: DevelopmentIdentity(app, allow_remote=allow_remote)


@dataclass(frozen=True)
class _Token:
    user: str
    project: str
    roles: str

    def as_environ(self, prefix: str) -> dict[str, str]:
        said = {
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
        return {prefix + name: text for name, text in said.items()}


def _identity(environ: "WSGIEnvironment") -> dict[str, str]:
    identity = _read("X-Auth-Token", environ.get("HTTP_X_AUTH_TOKEN", "")).as_environ("HTTP_X_")
    if "HTTP_X_SERVICE_TOKEN" in environ:
        service = _read("X-Service-Token", environ["HTTP_X_SERVICE_TOKEN"])
        identity |= service.as_environ("HTTP_X_SERVICE_")
    return identity


def _read(header: str, text: str) -> _Token:
    match = _TOKEN.fullmatch(unquote(text))
    if not match:
        raise NotIdentified(
            f"{header} {'is malformed' if text else 'is missing'}; here it has the form "
            f"{TOKEN_FORM}, as in `{header}: alice:demo:member,reader`"
        )
    return _Token(*match.groups())


def _with_implied(roles: list[str]) -> list[str]:
    held = list(dict.fromkeys(roles))
    for role in held:  # grows on the way
        implied = _IMPLIED.get(role)
        if implied and implied not in held:
            held.append(implied)
    return held


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
    said = schemas.fault(status.value, error, environ.get("openstack.request_id"))
    body = json.dumps(said).encode()
    headers = [
        ("Content-Type", "application/json; charset=UTF-8"),
        ("Content-Length", str(len(body))),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", f'Development form="{TOKEN_FORM}"'))
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


_BESIDE_AUTHTOKEN = (
    "{where} has keystonemiddleware's authtoken and the development identity filter, which "
    "believes every token; leave the development identity filter out"
)


def _refuse_beside_authtoken(path: str) -> None:
    parser = configparser.RawConfigParser(strict=False, default_section="DEFAULT")
    parser.read(path, encoding="utf-8")
    for section in parser.sections():
        for option, value in parser.items(section):
            behind = [_behind(word, parser) for word in value.split()]
            if any("keystonemiddleware" in text for text in behind) and any(
                "development_identity" in text for text in behind
            ):
                where = f"{option!r} of [{section}] in {path}"
                raise ConfigurationError(_BESIDE_AUTHTOKEN.format(where=where))


def _behind(name: str, parser: Any, depth: int = 8) -> str:
    """What stands behind a filter's ``name`` in a paste file, through its ``use`` lines."""
    section = f"filter:{name}"
    if not depth or not parser.has_section(section):
        return name
    return " ".join(_behind(value, parser, depth - 1) for _, value in parser.items(section))
