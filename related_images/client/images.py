"""Images of the instances of one installation."""

import itertools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from related_images.client.errors import (
    ImageNotOfInstance,
    NotInstanceAware,
    NotThere,
    RegistryError,
    StateConflict,
)
from related_images.client.importing import (
    DEADLINE,
    Importer,
    Progress,
    Source,
    Stores,
    ignore_progress,
)
from related_images.client.registry import OCTETS, Answer
from related_images.client.relations import Filter, RelationsClient
from related_images.client.results import (
    Ancestor,
    Descendant,
    Image,
    Instance,
    RegistryInfo,
    Relation,
)
from related_images.wire import headers, routes, words
from related_images.wire.headers import Assertion
from related_images.wire.words import InstanceRef

Data = Any
"""What can be sent as an image: bytes, a binary file, or an iterable of bytes."""


class InstanceAwareImageService:
    """Makes, finds and deletes the images of the instances of one installation.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :param installation_uuid: UUID of the Nova deployment
    :raises TypeError: if ``client`` is none of them
    :raises TupleMalformed: if ``installation_uuid`` is no UUID

    Every method raises :exc:`NotInstanceAware` before it creates, lists or deletes anything if the
    registry does not know about instances, :exc:`RegistryError` if a request does not succeed, and
    :exc:`BadInput` if an id, a kind or a label is malformed. One service may be shared by threads.
    """

    def __init__(self, client: object, installation_uuid: str) -> None:
        self.installation_uuid = words.installation_uuid(installation_uuid)
        self._relations = RelationsClient(client)
        self._registry = self._relations.registry

    def instance_ref(self, instance_id: str) -> InstanceRef:
        """The instance of this installation that has this id."""
        return InstanceRef(self.installation_uuid, instance_id)

    def info(self) -> RegistryInfo:
        """What the deployment says of itself; once it has said it, it is not asked again."""
        return self._relations.info()

    def create(
        self,
        instance_id: str,
        *,
        kind: str = words.SNAPSHOT,
        label: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Image:
        """Create an image, without data yet, that is recorded for the instance.

        The id is chosen here, so that an answer that was lost can be looked for: the image is
        created once, or an error tells its ``image_id``.

        :param kind: ``snapshot`` or ``backup``
        :param label: of the relation; the image may have a property of that name besides
        :param properties: more attributes, by whatever name, such as ``label``
        :param attributes: of the image, such as ``name``, ``disk_format``, ``container_format``
        :raises NotInstanceAware: also if the registry did not say that it recorded the relation,
            with the ``image_id``
        """
        words.kind(kind, words.MADE_FROM)
        assertion = self._assertion(instance_id, kind, label)
        body = {"id": str(uuid.uuid4()), **_all(attributes, properties)}
        self.info()
        return self._create(assertion, body)

    def _create(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        try:
            return self._create_once(assertion, body)
        except RegistryError as error:
            if not error.doubtful:
                raise
            found = self._look_for(assertion, error)
        return found or self._create_again(assertion, body)

    def _create_again(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        try:
            return self._create_once(assertion, body)
        except StateConflict as overtaken:
            # what was thought lost arrived in between
            found = self._look_for(assertion, overtaken)
            if found is None:
                raise
            return found

    def _create_once(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        said = assertion.as_headers()
        with _about(body["id"]):
            answer = self._registry.ask("POST", routes.IMAGES, json=dict(body), headers=said)
            recorded = answer.headers.get(headers.RECORDED)
            if recorded != assertion.kind:
                raise _unrecorded(body["id"], f"acknowledged {recorded}, not {assertion.kind}")
            return answer.read(lambda shown: Image(shown, recorded))

    def _look_for(self, assertion: Assertion, lost: RegistryError) -> Image | None:
        """What became of a creation whose answer was lost."""
        image_id = str(lost.image_id)
        try:
            image = self.get(image_id)
            relations = tuple(self._relations.relations_of_image(image_id))
        except NotThere:
            return None
        except RegistryError:
            raise lost from None
        if not any((r.instance, r.kind) == (assertion.instance, assertion.kind) for r in relations):
            raise _unrecorded(image_id, "shows no such relation of it")
        return Image(image, assertion.kind)

    def get(self, image_id: str) -> Image:
        """One image as it is now.

        :raises NotThere: if there is no such image for the caller
        """
        return self._registry.ask("GET", _path(image_id)).read(Image)

    def upload(self, image_id: str, data: Data) -> None:
        """Send the data of an image; it is streamed, once.

        :param data: bytes, a binary file, or an iterable of bytes
        :raises StateConflict: if the image has data already
        :raises PayloadTooLarge: if it is more than the quota allows
        """
        self._registry.ask("PUT", f"{_path(image_id)}/file", data=data, headers=OCTETS)

    def import_image(
        self,
        source: Source | None = None,
        *,
        instance_id: str | None = None,
        image_id: str | None = None,
        kind: str = words.SNAPSHOT,
        label: str | None = None,
        method: str | None = None,
        stores: Stores | None = None,
        deadline: float = DEADLINE,
        progress: Progress = ignore_progress,
        properties: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Image:
        """Have the registry import an image, and wait until it is active.

        Either a new image is created for ``instance_id``, or ``image_id`` names one that is there:
        a queued one to fill or, without a ``source``, an active one to copy to more stores.

        :param source: bytes, a binary file or an iterable of bytes (``glance-direct``), a URL
            (``web-download``), a :class:`RemoteImage` (``glance-download``), or none
            (``copy-image``)
        :param method: refuse if the source calls for another method than this
        :param stores: where to, if not to the default store
        :param deadline: seconds to wait for the end of it
        :param progress: called with the image each time it was looked at
        :param properties: and ``attributes``, as for :meth:`create`
        :raises ImportNotOffered: before anything is created, if the deployment lacks the method
        :raises ImportFailed: if it ended without success, with Glance's own message
        :raises ImportUnfinished: if it did not end within ``deadline``
        """
        given = _all(attributes, properties)
        _check_target(instance_id, image_id, given)
        self.info()
        importer = Importer(self._registry, source, stores or Stores())
        importer.check_offered(method)
        if instance_id is not None:
            image_id = self.create(instance_id, kind=kind, label=label, properties=given).id
        with _about(words.image_id(image_id)):
            return importer.run(str(image_id), deadline, progress)

    def list(
        self,
        instance_id: str,
        *,
        kind: str | None = None,
        label: str | None = None,
        limit: int | None = None,
        page_size: int | None = None,
        properties: Mapping[str, str] | None = None,
        **filters: str | int | tuple[str, ...],
    ) -> Iterator[Image]:
        """Images of an instance that the caller may see; none if the instance is not known.

        :param limit: at most so many in all
        :param page_size: at most so many a request
        :param properties: more filters, by whatever name, such as ``label``
        :param filters: Glance's own, such as ``status``, ``visibility``, ``sort_key``, ``sort_dir``
        :raises NotInstanceAware: also if the registry did not say that it filtered
        """
        if kind is not None:
            words.kind(kind)
        assertion = self._assertion(instance_id, kind, label)
        query = tuple(_query(assertion, _filters(filters, properties), limit, page_size))
        self.info()
        pages = self._registry.pages(routes.IMAGES, query)
        images = (image for page in pages for image in _read(page, assertion))
        return itertools.islice(images, limit)

    def backups(
        self,
        instance_id: str,
        label: str | None = None,
        *,
        limit: int | None = None,
        **filters: Any,
    ) -> Iterator[Image]:
        """The active backups of an instance, newest first.

        :param limit: and ``filters``, as for :meth:`list`
        :raises NotInstanceAware: also if the registry did not say that it filtered
        """
        return self.list(
            instance_id,
            kind=words.BACKUP,
            label=label,
            limit=limit,
            status="active",
            sort_key="created_at",
            sort_dir="desc",
            **filters,
        )

    def delete(self, image_id: str, *, instance_id: str | None = None) -> None:
        """Delete an image.

        :param instance_id: refuse unless the image is recorded as made of this instance
        :raises ImageNotOfInstance: if it is not; nothing is deleted
        :raises NotThere: if there is no such image for the caller
        """
        self.info()
        if instance_id is not None:
            self._check_made_of(self.instance_ref(instance_id), image_id)
        self._registry.ask("DELETE", _path(image_id))

    def _check_made_of(self, instance: InstanceRef, image_id: str) -> None:
        for relation in self._relations.relations_of_image(image_id):
            if relation.instance == instance and relation.kind in words.MADE_FROM:
                return
        raise ImageNotOfInstance(
            f"image {image_id} is not recorded as a snapshot or backup of instance "
            f"{instance.instance_id} of installation {instance.installation_uuid}; nothing was "
            "deleted; relations(image_id=...) tells what it belongs to",
            image_id=image_id,
        )

    def relations(self, instance_id: str | None = None, **filters: Filter) -> Iterator[Relation]:
        """Relations of this installation, newest first.

        :param filters: ``image_id``, ``project_id``, ``kind``, ``label``, ``source``,
            ``created_after``, ``created_before``, and ``limit``, the size of a page
        """
        return self._relations.relations(
            installation_uuid=self.installation_uuid, instance_id=instance_id, **filters
        )

    def attach(
        self,
        instance_id: str,
        image_id: str,
        *,
        kind: str,
        label: str | None = None,
        instance_project_id: str | None = None,
    ) -> Relation:
        """Record that an image that exists belongs to the instance; again changes nothing.

        :param instance_project_id: the project that sees a ``boot`` relation, which is not the
            image's
        :raises NotThere: if there is no such image for the caller
        :raises AccessDenied: if the caller may not record
        """
        instance = self.instance_ref(instance_id)
        return self._relations.attach(instance, image_id, kind, label, instance_project_id)

    def detach(self, instance_id: str, image_id: str, *, kind: str) -> None:
        """Take such a relation back; the image stays."""
        self._relations.detach(self.instance_ref(instance_id), image_id, kind)

    def instances(self, **filters: Filter) -> Iterator[Instance]:
        """Instances of this installation and how many images of each kind they have.

        :param filters: ``instance_id``, ``image_id``, ``project_id``, ``kind``, ``label``,
            ``source``, ``created_after``, ``created_before``, ``latest_before`` (no image of that
            ``kind`` since), and ``limit``, the size of a page
        """
        return self._relations.instances(installation_uuid=self.installation_uuid, **filters)

    def instance_ended(self, instance_id: str) -> None:
        """Say that the instance is gone: its images stay, what it was started from is free."""
        self._relations.instance_ended(self.instance_ref(instance_id))

    def ancestry(self, image_id: str) -> Iterator[Ancestor]:
        """The images that one descends from, the nearest first, of any installation."""
        return self._relations.ancestry(image_id)

    def descendants(self, image_id: str, *, depth: int | None = None) -> Iterator[Descendant]:
        """The images made from one, down to ``depth`` steps, of any installation."""
        return self._relations.descendants(image_id, depth=depth)

    def _assertion(self, instance_id: str, kind: str | None, label: str | None) -> Assertion:
        return Assertion(
            self.instance_ref(instance_id), kind, None if label is None else words.label(label)
        )


def _check_target(
    instance_id: str | None, image_id: str | None, attributes: Mapping[str, Any]
) -> None:
    if (instance_id is None) == (image_id is None):
        raise TypeError("give either instance_id, for a new image, or image_id")
    if image_id is not None and attributes:
        raise TypeError(f"{', '.join(attributes)} can only be given to a new image")


def _all(attributes: Mapping[str, Any], properties: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What is given by name of argument, and what has a name of its own."""
    twice = sorted(attributes.keys() & (properties or {}).keys())
    if twice:
        raise TypeError(f"{', '.join(twice)} is given as an argument and in properties too")
    return {**attributes, **(properties or {})}


def _filters(filters: Mapping[str, Any], properties: Mapping[str, Any] | None) -> Mapping[str, Any]:
    given = _all(filters, properties)
    ours = sorted(given.keys() & set(headers.QUERY))
    if ours:
        raise TypeError(
            f"{', '.join(ours)} is about the relation: it is taken from the service, instance_id, "
            "kind and label, and cannot be a filter on a property of the image"
        )
    return given


@contextmanager
def _about(image_id: str) -> Iterator[None]:
    """Have errors tell which image they are about: it may be there, created by now."""
    try:
        yield
    except RegistryError as error:
        error.image_id = image_id
        raise


def _path(image_id: str) -> str:
    return f"{routes.IMAGES}/{words.image_id(image_id)}"


def _query(
    assertion: Assertion, filters: Mapping[str, Any], limit: int | None, page_size: int | None
) -> Iterator[tuple[str, str]]:
    """The query of a list. In headers a registry without the filter would overlook the tuple."""
    said = assertion.as_headers()
    yield from (
        (word, said[name])
        for word, name in zip(headers.QUERY, headers.REQUEST, strict=False)
        if name in said
    )
    sizes = [size for size in (limit, page_size) if size is not None]
    if sizes:
        yield "limit", str(min(sizes))
    for name, value in filters.items():
        values = value if isinstance(value, tuple) else (value,)
        yield from ((name, str(each)) for each in values)


def _read(page: Answer, assertion: Assertion) -> tuple[Image, ...]:
    applied = page.headers.get(headers.FILTERS_APPLIED)
    if applied != assertion.acknowledgement():
        raise NotInstanceAware(
            f"the registry acknowledged {applied}, not {assertion.acknowledgement()}, so its list "
            "may hold images of other instances and is not used; check that every server behind "
            "the endpoint has the filter of related-images, in the same version"
        )
    return page.read(lambda body: tuple(Image(shown, applied) for shown in body["images"]))


def _unrecorded(image_id: str, said: str) -> NotInstanceAware:
    return NotInstanceAware(
        f"image {image_id} was created, but the registry {said}; attach it, or delete it and check "
        "that every server behind the endpoint has the filter of related-images",
        image_id=image_id,
    )
