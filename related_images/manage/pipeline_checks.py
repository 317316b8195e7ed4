"""Whether the paste file of a service has its filter, in the right place of each pipeline."""

import configparser
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from related_images import validation
from related_images.errors import BadInput, ConfigurationError
from related_images.manage import paste_file
from related_images.manage.findings import Finding, found

UUID_OPTIONS: Final = ("installation_uuid", "volume_installation_uuid")
"""The options of the filters in nova-api and cinder-api that hold the UUID of an installation."""

_IDENTITY: Final = "keystonemiddleware.auth_token"


@dataclass(frozen=True)
class Service:
    """How the paste file of a service names the parts of its pipelines.

    :ivar filters: the factories of the filter of related-images in this service
    :ivar context: the factory of the filter that reads the identity of the caller
    :ivar after: the factories of the filters that must be after the filter of related-images
    """

    name: str
    filters: tuple[str, ...]
    context: str
    after: tuple[str, ...] = ()


GLANCE: Final = Service(
    "Glance",
    tuple(value for values in paste_file.FILTER.values() for value in values),
    "glance.api.middleware.context:ContextMiddleware",
    ("glance.api.middleware.cache",),
)
NOVA_API: Final = Service(
    "nova-api",
    ("related_images.integrations.nova:filter_factory",),
    "nova.api.auth:NovaKeystoneContext",
)
CINDER_API: Final = Service(
    "cinder-api",
    ("related_images.integrations.cinder:filter_factory",),
    "cinder.api.middleware.auth:CinderKeystoneContext",
)


@dataclass(frozen=True)
class _Pipeline:
    """A pipeline of a paste file: where it is, and the names of its filters and its app."""

    section: str
    option: str
    names: Sequence[str]

    def __str__(self) -> str:
        return f"`{self.option}` of [{self.section}]"


def check(service: Service, path: Path, flavor: str | None = None) -> Iterator[Finding]:
    """Check the pipelines with the API of a service that serve users.

    :param flavor: the option ``flavor`` in ``[paste_deploy]`` of Glance; ``None`` for every
        pipeline with an identity
    """
    subject = f"{service.name}: pipeline"
    try:
        parser = paste_file.read(path)
    except ConfigurationError as error:
        yield found(subject, str(error))
        return
    pipelines = _served(_pipelines(parser), parser, service, flavor)
    if not pipelines:
        wanted = f"for the flavor {flavor!r}" if flavor else f"with {_IDENTITY}"
        yield found(subject, f"{path} has no pipeline of {service.name} {wanted}; {_CHOOSE}")
    for pipeline in pipelines:
        yield found(f"{subject} {pipeline}", _problem(parser, pipeline, service, path))
    if service is not GLANCE:
        yield from _options(parser, service, path)


_CHOOSE: Final = (
    "give the paste file that the service reads, and for Glance set flavor = keystone in "
    "[paste_deploy] of glance-api.conf"
)


def installations(service: Service, path: Path) -> list[str]:
    """Return the valid UUIDs in the filter's section of a paste file: :data:`UUID_OPTIONS`.

    There are none if the file cannot be read, which :func:`check` reports.
    """
    with suppress(ConfigurationError):
        parser = paste_file.read(path)
        texts = [
            parser[name][option].strip()
            for name in parser.sections()
            if _factory(parser, name) in service.filters
            for option in UUID_OPTIONS
            if option in parser[name]
        ]
        return [text for text in texts if validation.is_uuid(text)]
    return []


def _pipelines(parser: configparser.ConfigParser) -> Iterator[_Pipeline]:
    """Yield each pipeline, and each flavor of a composite of pipelines."""
    inherited = parser.defaults()
    for section in parser.sections():
        options = {name: text for name, text in parser.items(section) if name not in inherited}
        factory = options.get("paste.composite_factory", options.get("use", ""))
        if section.startswith("pipeline:"):
            yield _Pipeline(section, "pipeline", options.get("pipeline", "").split())
        elif section.startswith("composite:") and "pipeline_factory" in factory:
            for option, text in options.items():
                if option not in ("use", "paste.composite_factory"):
                    yield _Pipeline(section, option, text.split())


def _served(
    pipelines: Iterator[_Pipeline],
    parser: configparser.ConfigParser,
    service: Service,
    flavor: str | None,
) -> list[_Pipeline]:
    """Return the pipelines of the service that have the flavor, or else an identity."""
    module = service.context.partition(":")[0]
    of_api = [one for one in pipelines if _position(parser, one.names, (module,)) is not None]
    if flavor is None:
        return [one for one in of_api if _position(parser, one.names, (_IDENTITY,)) is not None]
    name = f"pipeline:glance-api-{flavor}" if flavor else "pipeline:glance-api"
    own = [one for one in of_api if one.section == name]
    return own or [one for one in of_api if one.option == (flavor or "default")]


def _problem(
    parser: configparser.ConfigParser, pipeline: _Pipeline, service: Service, path: Path
) -> str | None:
    """Return what is wrong with a pipeline; ``None`` if nothing is."""
    names = pipeline.names
    place, context = (
        _position(parser, names, factories) for factories in (service.filters, (service.context,))
    )
    follower = _position(parser, names, service.after)
    before = names[-1] if follower is None else names[follower]
    if _position(parser, names, (_IDENTITY,)) is None or context is None:
        return (
            f"{pipeline} in {path} does not check tokens, so every caller may state any identity; "
            "use a pipeline with authtoken and the filter of the context (for Glance set "
            "flavor = keystone in [paste_deploy] of glance-api.conf)"
        )
    if place is None:
        return (
            f"{pipeline} in {path} has no filter of related-images; insert related-images before "
            f"{before}, and add its section"
        )
    if place < context:
        return f"{pipeline} in {path}: move {names[place]} behind {names[context]}"
    if follower is not None and follower < place:
        return f"{pipeline} in {path}: move {names[place]} before {names[follower]}"
    return None


def _position(
    parser: configparser.ConfigParser, names: Sequence[str], factories: Sequence[str]
) -> int | None:
    """Return the index of the first filter with one of the factories."""
    positions = (
        index
        for index, name in enumerate(names)
        if factories and _factory(parser, name).startswith(tuple(factories))
    )
    return next(positions, None)


def _factory(parser: configparser.ConfigParser, name: str) -> str:
    """Return the factory of a section, named with its kind or, for a filter, without it."""
    section = next((it for it in (name, f"filter:{name}") if parser.has_section(it)), None)
    if section is None:
        return name  # a pipeline may name an entry point
    options = parser[section]
    return options.get("paste.filter_factory", options.get("use", "")).removeprefix("call:")


def _options(parser: configparser.ConfigParser, service: Service, path: Path) -> Iterator[Finding]:
    """Check the options of the filter in nova-api or cinder-api."""
    for name in parser.sections():
        if _factory(parser, name) in service.filters:
            subject = f"{service.name}: installation_uuid of [{name}]"
            text = parser[name].get(UUID_OPTIONS[0])
            yield found(subject, _uuid_problem(text, name, path))


def _uuid_problem(text: str | None, section: str, path: Path) -> str | None:
    if text is None:
        return (
            f"set installation_uuid in [{section}] of {path} to the UUID of this deployment; "
            "`related-images generate-installation-uuid` makes one"
        )
    try:
        validation.installation_uuid(text.strip())
    except BadInput as error:
        return f"[{section}] of {path}: {error}"
    return None
