"""The client for the relations of all installations."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from http import HTTPStatus
from typing import Any, TypeVar

from related_images import model, validation
from related_images.client import image_list
from related_images.client.errors import (
    GlanceError,
    NotFound,
    NotInstanceAware,
    ServiceUnavailable,
)
from related_images.client.glance import (
    IDS,
    PAGE,
    Answer,
    Glance,
    PageSizes,
    Query,
    image_path,
    refused_item,
    text_of,
)
from related_images.client.results import FilterInfo, Image
from related_images.errors import FieldInvalid, ParameterMalformed, TupleMalformed
from related_images.model import (
    Ancestor,
    Dependent,
    DependentSummary,
    Descendant,
    Heartbeat,
    Instance,
    InstanceRef,
    NewOrigin,
    Origin,
    ProjectDependents,
    RegisteredType,
    Relation,
    Usage,
)
from related_images.protocol import headers, parameters, paths, schemas

Item = TypeVar("Item")
Filter = str | bool | date | None
"""The value of a filter. ``None`` is no filter. A time is a ``datetime`` or a text in ISO 8601."""


class RelationsClient:
    """List, record and delete relations between images and servers, of all installations.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :raises TypeError: if ``client`` has another type

    Every method raises :exc:`BadInput` for a malformed argument, before it sends a request,
    :exc:`NotInstanceAware` if Glance does not have the filter, before it sends other requests, and
    :exc:`GlanceError` if a request fails.

    A method that returns an iterator requests each page when the caller reads it. ``limit`` is the
    maximum number of items of all pages together, and ``page_size`` that of one request. Both are
    whole numbers from 1. By default all items are returned, with Glance's default page size.
    """

    def __init__(self, client: object) -> None:
        self.glance = Glance(client)
        self._info: FilterInfo | None = None

    def info(self) -> FilterInfo:
        """Return the version and settings of the filter, which are requested only once."""
        if self._info is None:
            self._info = self._request_info()
        return self._info

    def _request_info(self) -> FilterInfo:
        try:
            answer = self.glance.request("GET", paths.INFO)
        except NotFound as error:
            raise NotInstanceAware(
                "this Glance does not have the related-images filter, so nothing was done; an "
                "operator can install related-images there and add its filter to the pipeline"
            ) from error
        return answer.read(FilterInfo.from_json)

    def relations(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Relation]:
        """Return the relations, newest first.

        :param filters: ``installation_uuid``, ``resource_type``, ``instance_id``, ``image_id``,
            ``project_id``, ``kind``, ``label``, ``source``, ``created_after``, ``created_before``,
            ``in_use`` (a live server or volume was made from the image) and ``leftover`` (a
            ``shelved`` relation ended although the image still exists)
        """
        query = _query(filters, parameters.FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(paths.RELATIONS, "relations", Relation.from_json, query, sizes)

    def images(
        self,
        *,
        installation_uuid: str | None = None,
        resource_type: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        source: str | None = None,
        created_after: date | str | None = None,
        created_before: date | str | None = None,
        in_use: bool | None = None,
        descends_from: str | None = None,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: str | int | tuple[str, ...],
    ) -> Iterator[Image]:
        """Return the images that the caller may see, restricted by relation.

        The arguments from ``installation_uuid`` to ``created_before`` must hold for one relation of
        the image. If one of them is given and ``kind`` is not, its kind is ``snapshot``, ``backup``
        or ``shelved``.

        :param installation_uuid: installation of the resource
        :param resource_type: type of the resource
        :param kind: kind of the relation
        :param label: label of the relation
        :param source: how the relation was reported
        :param created_after: the relation was recorded after this time
        :param created_before: the relation was recorded before this time
        :param in_use: whether live servers or volumes use the image; also images without a relation
        :param descends_from: ID of an image from which the image descends
        :param filters: filters and options of Glance, such as ``status``, ``visibility``, ``sort``
        :raises TypeError: if there is no argument from ``installation_uuid`` to ``descends_from``
        :raises Conflict: if Glance lists too many other images before the first one of this list
        :raises NotInstanceAware: also if Glance did not acknowledge the restriction
        """
        wanted = image_list.restriction(
            installation_uuid=installation_uuid,
            resource_type=resource_type,
            kind=kind,
            label=label,
            source=source,
            created_after=created_after,
            created_before=created_before,
            in_use=in_use,
            descends_from=descends_from,
        )
        if not wanted.query():
            raise TypeError(f"pass at least one of {', '.join(image_list.WORDS)}")
        found = image_list.images(self.glance, wanted, filters, PageSizes.of(limit, page_size))
        self.info()
        return found

    def relations_of_image(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Relation]:
        """Return the relations of one image.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.IMAGE_RELATIONS.format(image_id=validation.image_id(image_id))
        sizes = PageSizes.of(limit, page_size)
        return self._items(path, "relations", Relation.from_json, (), sizes)

    def attach(
        self,
        instance: InstanceRef,
        image_id: str,
        kind: str,
        label: str | None = None,
        instance_project_id: str | None = None,
        *,
        expires_at: datetime | str | None = None,
    ) -> Relation:
        """Record the relation of an existing image to a resource. Repeating it changes nothing.

        Repeating it with the kind ``use`` and a later ``expires_at`` extends the lease.

        :param instance: the server or volume; for ``use`` a resource of a registered type
        :param image_id: ID of the image
        :param kind: ``snapshot``, ``backup``, ``shelved``, ``boot`` or ``use``
        :param label: label of the relation, such as ``daily``
        :param instance_project_id: ID of the project of the resource, which may see a ``boot`` or
            ``use`` relation instead of the project of the image; ``use`` needs it
        :param expires_at: the end of the lease, for ``use``, which needs it; a text is in ISO 8601
        :returns: the recorded relation; its ``expires_at`` is the end that applies
        :raises NotFound: if the image does not exist or the caller may not see it
        :raises Conflict: if the relation is recorded with another label, the image is being
            deleted, the resource is recorded as deleted, or the project has too many leases
        :raises Forbidden: if the caller has no recording role
        """
        model.resource_type_for(model.kind(kind), _resource_type(instance))
        body = {
            **_ids(instance),
            **_type_query(instance),
            "image_id": validation.image_id(image_id),
            "kind": kind,
        }
        if expires_at is not None:
            time = validation.parse_time("expires_at", text_of(expires_at))
            body["expires_at"] = validation.format_time(time)
        if label is not None:
            body["label"] = validation.label(label)
        if instance_project_id is not None:
            body["instance_project_id"] = validation.text(
                "instance_project_id", instance_project_id
            )
        self.info().require_type(instance.resource_type)
        return self.glance.request("POST", paths.RELATIONS, json=body).read(Relation.from_json)

    def detach(self, instance: InstanceRef, image_id: str, kind: str) -> None:
        """Delete a relation; the image is not deleted.

        :param instance: the server or volume
        :param image_id: ID of the image
        :param kind: ``snapshot``, ``backup``, ``shelved``, ``boot`` or ``use``
        :raises NotFound: if the relation is not recorded
        :raises Forbidden: if the caller has neither a recording role nor an admin role
        """
        path, query = _relation_path(instance, image_id, kind), _type_query(instance)
        self.info().require_type(instance.resource_type)
        self.glance.request("DELETE", path, params=query)

    def roll_back(
        self, instance: InstanceRef, image_id: str, kind: str, recorded_at: datetime | None = None
    ) -> bool:
        """Roll back one report of the caller. The relation stays if others reported it as well.

        :param instance: the server or volume
        :param image_id: ID of the image
        :param kind: ``snapshot``, ``backup``, ``shelved``, ``boot`` or ``use``
        :param recorded_at: ``created_at`` of the relation that :meth:`attach` returned; ``None`` to
            roll back the creation of the image with the instance headers
        :returns: ``True`` if the relation was deleted
        :raises NotFound: if the relation is not recorded, or was recorded at another time
        """
        path = _relation_path(instance, image_id, kind)
        query = {**_type_query(instance), "own_report": parameters.CREATION}
        if recorded_at is not None:
            time = validation.parse_time("recorded_at", text_of(recorded_at))
            query |= {"own_report": parameters.ATTACHMENT, "created_at": time.isoformat()}
        self.info().require_type(instance.resource_type)
        answer = self.glance.request("DELETE", path, params=query)
        return answer.status == HTTPStatus.NO_CONTENT

    def resource_types(self) -> list[RegisteredType]:
        """Return the registered types of resources, which may have leases.

        :raises Forbidden: if the caller has no admin role
        """
        self.info()
        answer = self.glance.request("GET", paths.RESOURCE_TYPES)
        return answer.read(
            lambda body: [RegisteredType.from_json(one) for one in body["resource_types"]]
        )

    def register_resource_type(
        self, name: str, longest_lease_days: int = model.LONGEST_LEASE_DAYS
    ) -> RegisteredType:
        """Register a type of resources that may have leases. Repeating it changes nothing.

        :param name: name of the type, such as ``stack``
        :param longest_lease_days: how many days in the future a lease may end
        :raises Conflict: if it is registered with another number of days
        :raises Forbidden: if the caller has no admin role
        """
        days = validation.number("longest_lease_days", longest_lease_days)
        body = {"name": validation.resource_type(name), "longest_lease_days": days}
        self.info()
        answer = self.glance.request("POST", paths.RESOURCE_TYPES, json=body)
        return answer.read(RegisteredType.from_json)

    def remove_resource_type(self, name: str) -> None:
        """Remove a registered type of resources.

        :raises NotFound: if it is not registered
        :raises Conflict: if it has live leases
        :raises Forbidden: if the caller has no admin role
        """
        path = paths.RESOURCE_TYPE.format(name=validation.resource_type(name))
        self.info()
        self.glance.request("DELETE", path)

    def origins(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Origin]:
        """Return the origins of resources, those with the latest ``since`` first.

        :param filters: ``installation_uuid``, ``resource_type``, ``instance_id``, ``project_id``,
            ``created_after`` and ``created_before`` (both apply to ``since``)
        """
        query = _query(filters, parameters.ORIGIN_FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(paths.ORIGINS, "origins", Origin.from_json, query, sizes)

    def record_origins(self, origins: Iterable[NewOrigin]) -> list[Origin | GlanceError]:
        """Record from which other resources some resources come. Repeating it changes nothing.

        :param origins: any number of origins; one request has at most 100
        :returns: for each origin, in their order, the recorded one, or the error with which the
            filter refused it
        :raises ParameterMalformed: if an item is not a ``NewOrigin``, or its ``since`` is no time
        :raises Forbidden: if the caller has no recording role
        :raises GlanceError: if a request fails; the origins of earlier requests stay recorded
        """
        given = list(origins)
        items = [_new_origin(origin) for origin in given]
        for origin in given:
            self.info().require_type(origin.instance.resource_type)
        found: list[Origin | GlanceError] = []
        for start in range(0, len(items), schemas.BATCH_MAX):
            body = {"origins": items[start : start + schemas.BATCH_MAX]}
            answer = self.glance.request("POST", paths.ORIGINS, json=body)
            found += results(answer, "origins", lambda one: Origin.from_json(one["origin"]))
        return found

    def remove_origin(self, instance: InstanceRef, since: datetime | str) -> None:
        """Remove an origin that was reported wrongly.

        Without another origin, the source of the resource is unknown again.

        :param instance: the resource, not its source
        :param since: the ``since`` of the origin, as in :meth:`origins`; a text is in ISO 8601
        :raises NotFound: if the origin is not recorded
        :raises Forbidden: if the caller has neither a recording role nor an admin role
        """
        path = paths.ORIGIN.format(**_ids(instance))
        time = validation.parse_time(parameters.SINCE, text_of(since))
        query = {**_type_query(instance), parameters.SINCE: validation.format_time(time)}
        self.info().require_type(instance.resource_type)
        self.glance.request("DELETE", path, params=query)

    def instances(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Instance]:
        """Return the recorded servers and volumes, with the number of their images of each kind.

        :param filters: as for :meth:`relations`, and ``latest_before``: the resource has no later
            image of the ``kind``
        """
        query = _query(filters, parameters.INSTANCE_FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(paths.INSTANCES, "instances", Instance.from_json, query, sizes)

    def instance(self, instance: InstanceRef) -> Instance:
        """Return one resource, with the number of its images of each kind.

        :param instance: the server or volume
        :raises NotFound: if the resource is not recorded or the caller may not see it
        """
        path = paths.INSTANCE.format(**_ids(instance))
        self.info().require_type(instance.resource_type)
        answer = self.glance.request("GET", path, params=_type_query(instance))
        return answer.read(Instance.from_json)

    def instance_ended(self, instance: InstanceRef) -> None:
        """Record that a resource was deleted. Its images stay, and it no longer uses an image.

        :param instance: the server or volume
        :raises NotFound: if the resource is not recorded
        :raises Forbidden: if the caller has neither a recording role nor an admin role
        """
        path = paths.INSTANCE.format(**_ids(instance))
        self.info().require_type(instance.resource_type)
        self.glance.request("DELETE", path, params=_type_query(instance))

    def delete_image(self, image_id: str, *, force: bool = False) -> None:
        """Delete an image.

        :param image_id: ID of the image
        :param force: also delete an image that live servers use; needs an admin role
        :raises Conflict: if live servers use the image, with delete protection
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = image_path(image_id)
        options = {headers.FORCE: headers.FORCED} if validation.flag("force", force) else {}
        self.info()
        self.glance.request("DELETE", path, headers=options)

    def usages(
        self,
        image_ids: Iterable[str],
        *,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Usage]:
        """Return the number of servers and volumes made from each image, in the order of the IDs.

        :param image_ids: IDs of images
        :param limit: maximum number of images; others are ignored
        :param page_size: number of images of one request; 1000 by default, which is the maximum
        """
        sizes = PageSizes.of(limit, page_size)
        if isinstance(image_ids, str) or not isinstance(image_ids, Iterable):
            raise ParameterMalformed(
                f"image_ids={validation.shown(image_ids)} is not an iterable of image IDs; "
                "give one image as [image_id]"
            )
        ids = [validation.image_id(id) for id in itertools.islice(image_ids, sizes.limit)]
        self.info()
        step = min(sizes.page_size or PAGE, PAGE)
        return (
            usage
            for start in range(0, len(ids), step)
            for usage in self._usages(ids[start : start + step])
        )

    def _usages(self, image_ids: list[str]) -> list[Usage]:
        try:
            answer = self._ask_for_usages(image_ids)
            found = answer.read(_parse_usages)
            if [usage.image_id for usage in found] != list(dict.fromkeys(image_ids)):
                raise answer.invalid("it does not have the usages of the requested images")
            return found
        except ServiceUnavailable:
            # The count may time out, because many servers were started from these images. So the
            # request is split instead of repeated, which some clients do for a 503.
            half = len(image_ids) // 2
            if not half:
                raise
        return [*self._usages(image_ids[:half]), *self._usages(image_ids[half:])]

    def heartbeat(self, new: Heartbeat) -> Heartbeat:
        """Report that a process of a witness lost nothing for a time.

        See :meth:`InstanceAwareImageService.heartbeat`.

        :param new: the witness, the process and the time
        :returns: the whole interval that the process covers, which may be longer
        :raises Forbidden: if the caller may not report on the installation
        """
        if not isinstance(new, Heartbeat):
            raise FieldInvalid(f"the heartbeat {validation.shown(new)} is not a Heartbeat")
        body = new.as_json()
        self.info()
        return self.glance.request("POST", paths.WITNESSES, json=body).read(Heartbeat.from_json)

    def _ask_for_usages(self, image_ids: list[str]) -> Answer:
        ids = parameters.IMAGE_IDS
        no_retries: dict[str, Any] = {"status_code_retries": 0}
        if len(image_ids) <= IDS:
            query = {ids: ",".join(image_ids)}
            return self.glance.request("GET", paths.USAGES, params=query, **no_retries)
        body = {ids: image_ids}
        return self.glance.request("POST", paths.USAGES, json=body, is_read=True, **no_retries)

    def ancestry(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Ancestor]:
        """Return the images that an image descends from, the nearest first.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.ANCESTRY.format(image_id=validation.image_id(image_id))
        sizes = PageSizes.of(limit, page_size)
        return self._items(path, "ancestry", Ancestor.from_json, (), sizes)

    def descendants(
        self,
        image_id: str,
        *,
        depth: int | None = None,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Descendant]:
        """Return the images made from servers that were started from an image.

        :param image_id: ID of the image
        :param depth: number of generations, from 1; default: Glance's maximum
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.DESCENDANTS.format(image_id=validation.image_id(image_id))
        query = () if depth is None else (("depth", str(validation.number("depth", depth))),)
        sizes = PageSizes.of(limit, page_size)
        return self._items(path, "descendants", Descendant.from_json, query, sizes)

    def dependents(
        self,
        image_id: str,
        *,
        live: bool = True,
        depth: int | None = None,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: Filter,
    ) -> Iterator[Dependent]:
        """Return the resources that depend on an image, or on an image that was made from it.

        :param image_id: ID of the image
        :param live: ``False`` for the resources that no longer depend on it
        :param depth: number of generations of images; 1 for the image itself; default: all
        :param filters: ``resource_type`` and ``project_id``
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.DEPENDENTS.format(image_id=validation.image_id(image_id))
        given: dict[str, Any] = {"live": validation.flag("live", live), "depth": depth, **filters}
        query = _query(given, parameters.DEPENDENT_FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(path, "dependents", Dependent.from_json, query, sizes)

    def dependent_summary(self, image_id: str) -> DependentSummary:
        """Return the number of the resources that depend on an image, by type.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.DEPENDENT_SUMMARY.format(image_id=validation.image_id(image_id))
        self.info()
        return self.glance.request("GET", path).read(DependentSummary.from_json)

    def dependents_by_project(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[ProjectDependents]:
        """Return the number of the resources that depend on an image, by project and type.

        The filter counts all of them for each page, so that pages are large unless ``page_size`` is
        given.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        path = paths.DEPENDENT_SUMMARY.format(image_id=validation.image_id(image_id))
        query = ((parameters.GROUP_BY, parameters.BY_PROJECT),)
        sizes = PageSizes.of(limit, PAGE if page_size is None else page_size)
        return self._items(path, "projects", ProjectDependents.from_json, query, sizes)

    def _items(
        self,
        path: str,
        name: str,
        convert: Callable[[Mapping[str, Any]], Item],
        query: Query,
        sizes: PageSizes,
    ) -> Iterator[Item]:
        self.info()
        items = (
            item
            for answer in self.glance.pages(path, (*query, *sizes.query()))
            for item in answer.read(lambda body: [convert(shown) for shown in body[name]])
        )
        return itertools.islice(items, sizes.limit)


def results(
    answer: Answer, name: str, convert: Callable[[Mapping[str, Any]], Item]
) -> list[Item | GlanceError]:
    """Return what a request for several items recorded.

    :param name: the name of the list of results
    :param convert: takes the result of a recorded item
    :returns: for each item the converted result, or the error with which the filter refused it
    :raises InvalidResponse: if the response is malformed
    """
    return answer.read(
        lambda body: [
            refused_item(answer.request, one["status"], one["error"])
            if "error" in one
            else convert(one)
            for one in body[name]
        ]
    )


def _new_origin(origin: NewOrigin) -> dict[str, Any]:
    """Return the item of a request for an origin.

    :raises ParameterMalformed: if the argument is not a :class:`NewOrigin` with a time
    """
    if not isinstance(origin, NewOrigin):
        raise ParameterMalformed(
            f"the origin {validation.shown(origin)} is not a NewOrigin(instance, source, since)"
        )
    since = validation.parse_time("since", text_of(origin.since))
    project_id = origin.project_id
    return {
        **_ids(origin.instance),
        "resource_type": origin.instance.resource_type,
        "source": None if origin.source is None else origin.source.as_json(),
        "since": validation.format_time(since),
        "project_id": None if project_id is None else validation.text("project_id", project_id),
    }


def _ids(instance: InstanceRef) -> Mapping[str, Any]:
    """Return the IDs of a resource, by their names in paths and bodies.

    :raises TupleMalformed: if the argument is not an :class:`InstanceRef`
    """
    if not isinstance(instance, InstanceRef):
        raise TupleMalformed(
            f"the instance {validation.shown(instance)} is not an "
            "InstanceRef(installation_uuid, instance_id)"
        )
    return {
        "installation_uuid": instance.installation_uuid,
        "instance_id": instance.instance_id,
    }


def _resource_type(instance: InstanceRef) -> str:
    """Return the type of a resource.

    :raises TupleMalformed: if the argument is not an :class:`InstanceRef`
    """
    _ids(instance)
    return instance.resource_type


def _type_query(instance: InstanceRef) -> dict[str, str]:
    return dict(paths.type_query(instance.resource_type))


def _relation_path(instance: InstanceRef, image_id: str, kind: str) -> str:
    return paths.RELATION.format(
        image_id=validation.image_id(image_id), kind=model.kind(kind), **_ids(instance)
    )


def _parse_usages(body: Mapping[str, Any]) -> list[Usage]:
    return [
        replace(Usage.from_json(shown), all_projects=body["all_projects"])
        for shown in body["usages"]
    ]


def _query(filters: Mapping[str, Filter], known: parameters.Filters) -> Query:
    """Return the query, after the same checks as in Glance.

    :raises ParameterUnknown: if a filter is not ``known``
    :raises BadInput: if a value is malformed
    """
    for name in filters:
        parameters.check_known(name, known)
    query = [(name, text_of(value)) for name, value in filters.items() if value is not None]
    for name, text in query:
        known[name].parse(text)
    return tuple(query)
