"""The relations of every installation."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from http import HTTPStatus
from typing import Any, TypeVar

from related_images import model, validation
from related_images.client.errors import NotFound, NotInstanceAware, ServiceUnavailable
from related_images.client.glance import IDS, Glance, PageSizes, Query, image_path
from related_images.client.image import FilterInfo
from related_images.errors import ParameterMalformed, TupleMalformed
from related_images.model import Ancestor, Descendant, Instance, InstanceRef, Relation, Usage
from related_images.protocol import headers, parameters, paths

Item = TypeVar("Item")
Filter = str | bool | date | None
"""The value of a filter: ``None`` leaves it out, a time is a ``datetime`` or its ISO 8601 text."""


class RelationsClient:
    """Asks for relations and instances, and says what is related.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :raises TypeError: if ``client`` is none of them

    Every method raises :exc:`BadInput` if an argument is malformed, before it sends a request,
    :exc:`NotInstanceAware` if Glance has no relations, before it asks for anything else, and
    :exc:`GlanceError` if a request does not succeed.

    A method that returns an iterator requests a page when the caller reads that far. Its ``limit``
    is the number of items of all pages together, its ``page_size`` the number of items that one
    request asks for. Both are whole numbers from 1; without them it reads to the end, in the pages
    that Glance chooses.
    """

    def __init__(self, client: object) -> None:
        self.glance = Glance(client)
        self._info: FilterInfo | None = None

    def info(self) -> FilterInfo:
        """What the deployment says of itself; once it has said it, it is not asked again."""
        if self._info is None:
            self._info = self._ask_info()
        return self._info

    def _ask_info(self) -> FilterInfo:
        try:
            answer = self.glance.ask("GET", paths.INFO)
        except NotFound as error:
            raise NotInstanceAware(
                "this registry does not know about instances, so nothing was done; its operator "
                "can install related-images there and put its filter into the pipeline"
            ) from error
        return answer.read(FilterInfo.from_json)

    def relations(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Relation]:
        """Relations, newest first.

        :param filters: ``installation_uuid``, ``instance_id``, ``image_id``, ``project_id``,
            ``kind``, ``label``, ``source``, ``created_after``, ``created_before``, and ``in_use``
            (whether a live instance was started from the image)
        """
        query = _query(filters, parameters.FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(paths.RELATIONS, "relations", Relation.from_json, query, sizes)

    def relations_of_image(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Relation]:
        """Relations of one image.

        :raises NotFound: if there is no such image for the caller
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
    ) -> Relation:
        """Record that an image that exists belongs to ``instance``; again changes nothing.

        :param instance_project_id: the project that sees a ``boot`` relation, which is not the
            image's
        :raises NotFound: if there is no such image for the caller
        :raises Forbidden: if the caller may not record
        """
        body = {
            **_ids(instance),
            "image_id": validation.image_id(image_id),
            "kind": model.kind(kind),
        }
        if label is not None:
            body["label"] = validation.label(label)
        if instance_project_id is not None:
            body["instance_project_id"] = validation.text(
                "instance_project_id", instance_project_id
            )
        self.info()
        return self.glance.ask("POST", paths.RELATIONS, json=body).read(Relation.from_json)

    def detach(self, instance: InstanceRef, image_id: str, kind: str) -> None:
        """Take such a relation back; the image stays.

        :raises NotFound: if there is no such relation
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        path = _relation(instance, image_id, kind)
        self.info()
        self.glance.ask("DELETE", path)

    def take_back(
        self, instance: InstanceRef, image_id: str, kind: str, recorded_at: datetime | None = None
    ) -> bool:
        """Take one's own report of a relation back: the relation stays if others report it too.

        :param recorded_at: the report is an attachment, and ``created_at`` of the relation that
            :meth:`attach` gave; else the report is the creation of the image for ``instance``
        :returns: whether the relation is gone
        :raises NotFound: if there is no such relation, or none that was recorded then
        """
        path = _relation(instance, image_id, kind)
        query = {"own_report": parameters.CREATION}
        if recorded_at is not None:
            time = validation.parse_time("recorded_at", _text(recorded_at))
            query = {"own_report": parameters.ATTACHMENT, "created_at": time.isoformat()}
        self.info()
        answer = self.glance.ask("DELETE", path, params=query)
        return answer.status == HTTPStatus.NO_CONTENT

    def instances(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Instance]:
        """Instances and how many images of each kind they have.

        :param filters: as for :meth:`relations`, and ``latest_before``: no image of that ``kind``
            since
        """
        query = _query(filters, parameters.INSTANCE_FILTERS)
        sizes = PageSizes.of(limit, page_size)
        return self._items(paths.INSTANCES, "instances", Instance.from_json, query, sizes)

    def instance(self, instance: InstanceRef) -> Instance:
        """One instance.

        :raises NotFound: if the caller sees no such server
        """
        path = paths.INSTANCE.format(**_ids(instance))
        self.info()
        return self.glance.ask("GET", path).read(Instance.from_json)

    def instance_ended(self, instance: InstanceRef) -> None:
        """Record that ``instance`` was deleted: its images stay, it no longer uses any image.

        :raises NotFound: if no such instance is recorded
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        path = paths.INSTANCE.format(**_ids(instance))
        self.info()
        self.glance.ask("DELETE", path)

    def delete_image(self, image_id: str, *, force: bool = False) -> None:
        """Delete an image.

        :param force: also if live servers were started from it; only an administrator can do so
        :raises Conflict: if live servers were started from it and the deployment guards those
        :raises NotFound: if there is no such image for the caller
        """
        path = image_path(image_id)
        said = {headers.FORCE: headers.FORCED} if validation.flag("force", force) else {}
        self.info()
        self.glance.ask("DELETE", path, headers=said)

    def usages(
        self,
        image_ids: Iterable[str],
        *,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Usage]:
        """How many instances were started from each of the images, in their order.

        :param limit: ask about the first images only
        :param page_size: images that one request asks about: 32 unless given, and at most
        """
        sizes = PageSizes.of(limit, page_size)
        if isinstance(image_ids, str) or not isinstance(image_ids, Iterable):
            raise ParameterMalformed(
                f"image_ids={validation.shown(image_ids)} is not an iterable of image IDs; "
                "give one image as [image_id]"
            )
        ids = [validation.image_id(id) for id in itertools.islice(image_ids, sizes.limit)]
        self.info()
        step = min(sizes.of_a_page or IDS, IDS)
        return (
            usage
            for start in range(0, len(ids), step)
            for usage in self._usages(ids[start : start + step])
        )

    def _usages(self, image_ids: list[str]) -> list[Usage]:
        asked = {"image_ids": ",".join(image_ids)}
        try:
            answer = self.glance.ask("GET", paths.USAGES, params=asked, status_code_retries=0)
            return answer.read(_usages)
        except ServiceUnavailable:
            # together they may have been started from too often to be counted in time; to ask the
            # same again, as some clients do by themselves, would only take longer
            half = len(image_ids) // 2
            if not half:
                raise
        return [*self._usages(image_ids[:half]), *self._usages(image_ids[half:])]

    def ancestry(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Ancestor]:
        """The images that one descends from, the nearest first."""
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
        """The images made from one.

        :param depth: number of generations, from 1
        """
        path = paths.DESCENDANTS.format(image_id=validation.image_id(image_id))
        query = () if depth is None else (("depth", str(validation.positive("depth", depth))),)
        sizes = PageSizes.of(limit, page_size)
        return self._items(path, "descendants", Descendant.from_json, query, sizes)

    def _items(
        self,
        path: str,
        name: str,
        shape: Callable[[Mapping[str, Any]], Item],
        query: Query,
        sizes: PageSizes,
    ) -> Iterator[Item]:
        self.info()
        items = (
            item
            for answer in self.glance.pages(path, (*query, *sizes.query()))
            for item in answer.read(lambda body: [shape(shown) for shown in body[name]])
        )
        return itertools.islice(items, sizes.limit)


def _ids(instance: InstanceRef) -> Mapping[str, Any]:
    """The IDs of the instance, as paths and bodies name them.

    :raises TupleMalformed: if it is no :class:`InstanceRef`
    """
    if not isinstance(instance, InstanceRef):
        raise TupleMalformed(
            f"the instance {validation.shown(instance)} is not an "
            "InstanceRef(installation_uuid, instance_id)"
        )
    return instance.as_json()


def _relation(instance: InstanceRef, image_id: str, kind: str) -> str:
    """The path of one relation."""
    return paths.RELATION.format(
        image_id=validation.image_id(image_id), kind=model.kind(kind), **_ids(instance)
    )


def _usages(body: Mapping[str, Any]) -> list[Usage]:
    return [
        replace(Usage.from_json(shown), all_projects=body["all_projects"])
        for shown in body["usages"]
    ]


def _query(filters: Mapping[str, Filter], known: parameters.Filters) -> Query:
    """The query of these filters, each read as the filter in Glance reads it.

    :raises ParameterUnknown: if one is not ``known``
    :raises BadInput: if a value is malformed
    """
    for name in filters:
        parameters.check_known(name, known)
    query = [(name, _text(value)) for name, value in filters.items() if value is not None]
    for name, text in query:
        known[name].parse(text)
    return tuple(query)


def _text(value: Any) -> Any:
    """A value as a query has it; what is of no type that a filter takes is left as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else value
