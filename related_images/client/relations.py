"""The relations that a registry knows, of every installation."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, TypeVar

from related_images import model, validation
from related_images.client.errors import NotFound, NotInstanceAware, ServiceUnavailable
from related_images.client.glance import Glance, image_path
from related_images.client.image import FilterInfo
from related_images.model import Ancestor, Descendant, Instance, InstanceRef, Relation, Usage
from related_images.protocol import headers, paths

Item = TypeVar("Item")
Filter = str | int | datetime | None

IDS: Final = 32
"""Images whose usage is asked for at once: uWSGI keeps a request in 4,096 bytes unless it
is told otherwise, the query twice, and drops headers that do not fit, such as the token."""


class RelationsClient:
    """Asks for relations and instances, and says what is related.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :raises TypeError: if ``client`` is none of them

    Every method raises :exc:`NotInstanceAware` if the registry has no relations, before it asks for
    anything else, and :exc:`GlanceError` if a request does not succeed. What gives an iterator
    asks for a page when it comes to it.
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

    def relations(self, **filters: Filter) -> Iterator[Relation]:
        """Relations, newest first.

        :param filters: ``installation_uuid``, ``instance_id``, ``image_id``, ``project_id``,
            ``kind``, ``label``, ``source``, ``created_after``, ``created_before``, ``in_use``
            (whether a live instance was started from the image), and ``limit``, the size of a page
        """
        return self._items(paths.RELATIONS, "relations", Relation.from_json, filters)

    def relations_of_image(self, image_id: str) -> Iterator[Relation]:
        """Relations of one image.

        :raises NotFound: if there is no such image for the caller
        """
        path = paths.IMAGE_RELATIONS.format(image_id=validation.image_id(image_id))
        return self._items(path, "relations", Relation.from_json, {})

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
        self.info()
        body = {
            "installation_uuid": instance.installation_uuid,
            "instance_id": instance.instance_id,
            "image_id": validation.image_id(image_id),
            "kind": model.kind(kind),
        }
        if label is not None:
            body["label"] = validation.label(label)
        if instance_project_id is not None:
            body["instance_project_id"] = instance_project_id
        return self.glance.ask("POST", paths.RELATIONS, json=body).read(Relation.from_json)

    def detach(self, instance: InstanceRef, image_id: str, kind: str) -> None:
        """Take such a relation back; the image stays.

        :raises NotFound: if there is no such relation
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        self.info()
        self.glance.ask("DELETE", _relation(instance, image_id, kind))

    def take_back(
        self, instance: InstanceRef, image_id: str, kind: str, recorded_at: datetime | None = None
    ) -> bool:
        """Take one's own report of a relation back: the relation stays if others report it too.

        :param recorded_at: the report is an attachment, and ``created_at`` of the relation that
            :meth:`attach` gave; else the report is the creation of the image for ``instance``
        :returns: whether the relation is gone
        :raises NotFound: if there is no such relation, or none that was recorded then
        """
        self.info()
        report = {"own_report": "creation"}
        if recorded_at is not None:
            report = {"own_report": "attachment", "created_at": recorded_at.isoformat()}
        answer = self.glance.ask("DELETE", _relation(instance, image_id, kind), params=report)
        return answer.status == HTTPStatus.NO_CONTENT

    def instances(self, **filters: Filter) -> Iterator[Instance]:
        """Instances and how many images of each kind they have.

        :param filters: as for :meth:`relations`, and ``latest_before``: no image of that ``kind``
            since
        """
        return self._items(paths.INSTANCES, "instances", Instance.from_json, filters)

    def instance(self, instance: InstanceRef) -> Instance:
        """One instance.

        :raises NotFound: if the registry knows none such for the caller
        """
        self.info()
        path = paths.INSTANCE.format(**instance.as_json())
        return self.glance.ask("GET", path).read(Instance.from_json)

    def instance_ended(self, instance: InstanceRef) -> None:
        """Record that ``instance`` was deleted: its images stay, it no longer uses any image.

        :raises NotFound: if no such instance is recorded
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        self.info()
        self.glance.ask("DELETE", paths.INSTANCE.format(**instance.as_json()))

    def delete_image(self, image_id: str, *, force: bool = False) -> None:
        """Delete an image.

        :param force: also if live servers were started from it; only an administrator can do so
        :raises Conflict: if live servers were started from it and the deployment guards those
        :raises NotFound: if there is no such image for the caller
        """
        self.info()
        said = {headers.FORCE: headers.FORCED} if force else {}
        self.glance.ask("DELETE", image_path(image_id), headers=said)

    def usages(self, image_ids: Iterable[str]) -> Iterator[Usage]:
        """How many instances were started from each of the images, in their order."""
        self.info()
        remaining = iter(image_ids)
        while batch := [validation.image_id(id) for id in itertools.islice(remaining, IDS)]:
            yield from self._usages(batch)

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

    def ancestry(self, image_id: str) -> Iterator[Ancestor]:
        """The images that one descends from, the nearest first."""
        path = paths.ANCESTRY.format(image_id=validation.image_id(image_id))
        return self._items(path, "ancestry", Ancestor.from_json, {})

    def descendants(self, image_id: str, *, depth: int | None = None) -> Iterator[Descendant]:
        """The images made from one, down to ``depth`` steps."""
        path = paths.DESCENDANTS.format(image_id=validation.image_id(image_id))
        return self._items(path, "descendants", Descendant.from_json, {"depth": depth})

    def _items(
        self,
        path: str,
        name: str,
        shape: Callable[[Mapping[str, Any]], Item],
        filters: Mapping[str, Filter],
    ) -> Iterator[Item]:
        self.info()
        query = [(word, _text(value)) for word, value in filters.items() if value is not None]
        return (
            item
            for answer in self.glance.pages(path, query)
            for item in answer.read(lambda body: [shape(shown) for shown in body[name]])
        )


def _relation(instance: InstanceRef, image_id: str, kind: str) -> str:
    """The path of one relation."""
    return paths.RELATION.format(
        image_id=validation.image_id(image_id), kind=model.kind(kind), **instance.as_json()
    )


def _usages(body: Mapping[str, Any]) -> list[Usage]:
    return [
        replace(Usage.from_json(shown), all_projects=body["all_projects"])
        for shown in body["usages"]
    ]


def _text(value: str | int | datetime) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)
