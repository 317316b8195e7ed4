"""Images of the instances of one installation."""

import difflib
import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from related_images import model, validation
from related_images.client.errors import (
    Conflict,
    GlanceError,
    ImageNotOfInstance,
    NotFound,
    NotInstanceAware,
)
from related_images.client.glance import OCTETS, Answer, PageSizes, image_path
from related_images.client.image import FilterInfo, Image
from related_images.client.image_data import Data, check_data, opened
from related_images.client.import_request import (
    Source,
    Stores,
    check_formats,
    check_waiting,
)
from related_images.client.importing import (
    DEADLINE,
    Importer,
    Progress,
    StartedImport,
    ignore_progress,
    wait,
)
from related_images.client.relations import Filter, RelationsClient
from related_images.model import Ancestor, Descendant, Instance, InstanceRef, Relation, Usage
from related_images.protocol import headers, paths
from related_images.protocol.headers import Assertion

ALIKE: Final = 0.75
"""How alike two names are, of 1, that one is taken for the other misspelled: ``knd`` and ``kind``
are, and no property that Glance describes is like an argument."""


IMPORT_ARGUMENTS: Final = (
    *("kind", "label", "method", "stores", "deadline", "progress", "properties"),
)


class InstanceAwareImageService:
    """Makes, finds and deletes the images of the instances of one installation.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service
    :param installation_uuid: UUID of the Nova deployment
    :raises TypeError: if ``client`` is none of them
    :raises TupleMalformed: if ``installation_uuid`` is no UUID

    Every method raises :exc:`BadInput` if an argument is malformed, before it sends a request,
    :exc:`NotInstanceAware` before it creates, lists or deletes anything if Glance does not know
    about instances, and :exc:`GlanceError` if a request does not succeed. Threads may share one
    service.

    A method that returns an iterator requests a page when the caller reads that far. Its ``limit``
    is the number of items of all pages together, its ``page_size`` the number of items that one
    request asks for. Both are whole numbers from 1; without them it reads to the end, in the pages
    that Glance chooses.
    """

    def __init__(self, client: object, installation_uuid: str) -> None:
        self.installation_uuid = validation.installation_uuid(installation_uuid)
        self._relations = RelationsClient(client)
        self._glance = self._relations.glance

    def instance_ref(self, instance_id: str) -> InstanceRef:
        """The instance of this installation that has this id."""
        return InstanceRef(self.installation_uuid, instance_id)

    def info(self) -> FilterInfo:
        """What the deployment says of itself; once it has said it, it is not asked again."""
        return self._relations.info()

    def create(
        self,
        instance_id: str,
        *,
        kind: str,
        label: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Image:
        """Create an image, without data yet, that is recorded for the instance.

        The id is chosen here unless ``properties`` has one, so that an answer that was lost can be
        looked for. The image is created once; if it is not known whether it was, the error has the
        ``image_id`` to look for.

        :param kind: ``snapshot`` or ``backup``
        :param label: of the relation; the image may have a property of that name besides
        :param properties: more attributes, by whatever name, such as ``label``
        :param attributes: of the image, such as ``name``, ``disk_format``, ``container_format``
        :raises TypeError: if an attribute looks like a misspelled argument; ``properties`` takes it
        :raises NotInstanceAware: also if Glance did not acknowledge the relation,
            with the ``image_id``
        """
        _check_spelling(attributes, ("label", "properties"))
        return self._create(*self._new(instance_id, kind, label, _all(attributes, properties)))

    def _new(
        self, instance_id: str, kind: str, label: str | None, attributes: Mapping[str, Any]
    ) -> tuple[Assertion, dict[str, Any]]:
        """What a new image is recorded as, and its attributes, all of them checked."""
        model.kind(kind, model.MADE_FROM)
        return self._assertion(instance_id, kind, label), _with_id(attributes)

    def _create(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        self.info()
        try:
            return self._create_once(assertion, body)
        except GlanceError as error:
            if not error.doubtful:
                raise
            found = self._look_for(assertion, body["id"], error)
        return found or self._create_again(assertion, body)

    def _create_again(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        try:
            return self._create_once(assertion, body)
        except Conflict as overtaken:
            # what was thought lost arrived in between
            found = self._look_for(assertion, body["id"], overtaken)
            if found is None:
                raise
            return found

    def _create_once(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        said = assertion.as_headers()
        with _about(body["id"], is_there=False):
            answer = self._glance.ask("POST", paths.IMAGES, json=dict(body), headers=said)
            recorded = answer.headers.get(headers.RECORDED)
            if recorded != assertion.kind:
                raise _unrecorded(body["id"], f"acknowledged {recorded}, not {assertion.kind}")
            return answer.read(lambda shown: Image(shown, recorded))

    def _look_for(self, assertion: Assertion, image_id: str, lost: GlanceError) -> Image | None:
        """What became of a creation whose answer was lost."""
        try:
            image = self.get(image_id)
            relations = tuple(self._relations.relations_of_image(image_id))
        except NotFound:
            return None
        except GlanceError:
            lost.image_id = image_id  # it may be there
            raise lost from None
        if not any((r.instance, r.kind) == (assertion.instance, assertion.kind) for r in relations):
            raise _unrecorded(image_id, "shows no such relation of it")
        return Image(image, assertion.kind)

    def get(self, image_id: str) -> Image:
        """One image as it is now.

        :raises NotFound: if there is no such image for the caller
        """
        return self._glance.ask("GET", image_path(image_id)).read(Image)

    def upload(self, image_id: str, data: Data) -> None:
        """Send the data of an image; it is streamed, once.

        :param data: bytes, a binary file, the ``Path`` of a file, or an iterable of bytes
        :raises UploadInvalid: if it is none of these, or a file that cannot be read
        :raises Conflict: if the image has data already
        :raises PayloadTooLarge: if it is more than the quota allows
        """
        path = f"{image_path(image_id)}/file"
        check_data(data)
        with opened(data) as body:
            self._glance.ask("PUT", path, data=body, headers=OCTETS)

    def import_image(
        self,
        source: Source | None = None,
        *,
        instance_id: str | None = None,
        image_id: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        method: str | None = None,
        stores: Stores | None = None,
        deadline: float = DEADLINE,
        progress: Progress = ignore_progress,
        properties: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Image:
        """Have Glance import an image, and wait until it is active.

        Either a new image is created for ``instance_id``, or ``image_id`` names one that is there:
        a queued one to fill or, without a ``source``, an active one to copy to more stores.

        What can be known to be wrong is refused before anything is created or sent.

        :param source: bytes, a binary file, a ``Path`` or an iterable of bytes (``glance-direct``),
            a URL (``web-download``), a :class:`RemoteImage` (``glance-download``), or none
            (``copy-image``)
        :param kind: and ``label``, ``properties`` and ``attributes``, of a new image, as for
            :meth:`create`; the kind and both formats are needed
        :param method: refuse if the source calls for another method than this
        :param stores: where to, if not to the default store
        :param deadline: seconds to wait for the end of it; the last look is at the deadline
        :param progress: called with the image each time it was looked at
        :raises TypeError: if arguments are missing or contradict each other, or if an attribute
            looks like a misspelled argument
        :raises ImportInvalid: before anything is created, if this can never be imported
        :raises ImportNotOffered: before anything is created, if the deployment lacks the method or,
            as :exc:`StoreNotOffered`, a store
        :raises ImportFailed: if Glance refused it or it ended without success
        :raises ImportUnfinished: if it did not end within ``deadline``
        """
        _check_spelling(attributes, IMPORT_ARGUMENTS)
        given = _all(attributes, properties)
        importer = Importer(self._glance, source, Stores() if stores is None else stores)
        check_waiting(deadline, progress)
        if image_id is not None:
            _check_existing(instance_id, given, kind=kind, label=label)
            validation.image_id(image_id)
            self.info()
            importer.check_offered(method)
            importer.check_image(image_id)
        else:
            instance_id, kind = _check_new(source, instance_id, kind)
            new = self._new(instance_id, kind, label, given)
            check_formats(given)
            self.info()
            importer.check_offered(method)
            importer.check_formats(given)
            image_id = str(self._create(*new).id)
        with _about(image_id):
            return importer.run(image_id, deadline, progress)

    def wait_for_import(
        self,
        image_id: str,
        *,
        deadline: float = DEADLINE,
        progress: Progress = ignore_progress,
    ) -> Image:
        """Wait for an import that was begun earlier, by this process or by another.

        Of several imports it is the one that goes on, else the latest. Glance knows what it was
        asked for.

        :param deadline: and ``progress``, as for :meth:`import_image`
        :raises ImportFailed: if it ended without success, or if none is under way and the image is
            not active
        :raises ImportUnfinished: if it did not end within ``deadline``
        :raises NotFound: if there is no such image for the caller
        """
        check_waiting(deadline, progress)
        return wait(StartedImport(self._glance, image_id), deadline, progress)

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

        :param properties: more filters, by whatever name, such as ``label``
        :param filters: Glance's own, such as ``status``, ``visibility``, ``sort_key``, ``sort_dir``
        :raises TypeError: if a filter looks like a misspelled argument; ``properties`` takes it
        :raises NotInstanceAware: also if Glance did not acknowledge the filters
        """
        _check_spelling(filters, ("kind", "label", "limit", "page_size", "properties"))
        if kind is not None:
            model.kind(kind)
        assertion = self._assertion(instance_id, kind, label)
        sizes = PageSizes.of(limit, page_size)
        query = (*_query(assertion, _filters(filters, properties)), *sizes.query())
        self.info()
        pages = self._glance.pages(paths.IMAGES, query)
        images = (image for page in pages for image in _read(page, assertion))
        return itertools.islice(images, sizes.limit)

    def backups(
        self,
        instance_id: str,
        label: str | None = None,
        *,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: Any,
    ) -> Iterator[Image]:
        """The active backups of an instance, newest first.

        :param filters: as for :meth:`list`
        :raises NotInstanceAware: also if Glance did not acknowledge the filters
        """
        return self.list(
            instance_id,
            kind=model.BACKUP,
            label=label,
            limit=limit,
            page_size=page_size,
            status="active",
            sort_key="created_at",
            sort_dir="desc",
            **filters,
        )

    def delete(self, image_id: str, *, instance_id: str | None = None, force: bool = False) -> None:
        """Delete an image.

        :param instance_id: refuse unless the image is recorded as made of this instance
        :param force: also if live servers were started from it; only an administrator can do so
        :raises ImageNotOfInstance: if it is not; nothing is deleted
        :raises Conflict: if live servers were started from it and the deployment guards those
        :raises NotFound: if there is no such image for the caller
        """
        validation.flag("force", force)
        if instance_id is not None:
            self._check_made_of(self.instance_ref(instance_id), image_id)
        self._relations.delete_image(image_id, force=force)

    def _check_made_of(self, instance: InstanceRef, image_id: str) -> None:
        for relation in self._relations.relations_of_image(image_id):
            is_meant = relation.instance == instance and relation.kind in model.MADE_FROM
            if is_meant and self._is_of_image_there(relation):
                return
        raise ImageNotOfInstance(
            f"image {image_id} is not recorded as a snapshot or backup of instance "
            f"{instance.instance_id} of installation {instance.installation_uuid}; nothing was "
            f"deleted; `openstack image relation list {image_id}` shows what it belongs to",
            image_id=image_id,
        )

    def _is_of_image_there(self, relation: Relation) -> bool:
        """Whether the image that Glance has is that of the relation, and no later one."""
        if relation.image_deleted_at is not None or relation.image_created_at is None:
            return relation.image_deleted_at is None
        there = self.get(relation.image_id)
        return relation.image_created_at == validation.parse_time("created_at", there.created_at)

    def relations(
        self,
        instance_id: str | None = None,
        *,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: Filter,
    ) -> Iterator[Relation]:
        """Relations of this installation, newest first.

        :param filters: ``image_id``, ``project_id``, ``kind``, ``label``, ``source``,
            ``created_after``, ``created_before`` and ``in_use``
        """
        return self._relations.relations(
            installation_uuid=self.installation_uuid,
            instance_id=instance_id,
            limit=limit,
            page_size=page_size,
            **filters,
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
        :raises NotFound: if there is no such image for the caller
        :raises Forbidden: if the caller may not record
        """
        instance = self.instance_ref(instance_id)
        return self._relations.attach(instance, image_id, kind, label, instance_project_id)

    def detach(self, instance_id: str, image_id: str, *, kind: str) -> None:
        """Take such a relation back; the image stays.

        :raises NotFound: if there is no such relation
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        self._relations.detach(self.instance_ref(instance_id), image_id, kind)

    def instances(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Instance]:
        """Instances of this installation and how many images of each kind they have.

        :param filters: ``instance_id``, ``image_id``, ``project_id``, ``kind``, ``label``,
            ``source``, ``created_after``, ``created_before``, ``in_use``, and ``latest_before`` (no
            image of that ``kind`` since)
        """
        return self._relations.instances(
            installation_uuid=self.installation_uuid, limit=limit, page_size=page_size, **filters
        )

    def instance_ended(self, instance_id: str) -> None:
        """Record that the instance was deleted: its images stay, it no longer uses any image.

        :raises NotFound: if no such instance is recorded
        :raises Forbidden: if the caller neither may record nor is an administrator
        """
        self._relations.instance_ended(self.instance_ref(instance_id))

    def usages(
        self,
        image_ids: Iterable[str],
        *,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Usage]:
        """How many instances of any installation were started from each image, in their order.

        :param limit: ask about the first images only
        :param page_size: images that one request asks about: 32 unless given, and at most
        """
        return self._relations.usages(image_ids, limit=limit, page_size=page_size)

    def ancestry(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Ancestor]:
        """The images that one descends from, the nearest first, of any installation."""
        return self._relations.ancestry(image_id, limit=limit, page_size=page_size)

    def descendants(
        self,
        image_id: str,
        *,
        depth: int | None = None,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Descendant]:
        """The images made from one, of any installation.

        :param depth: number of generations, from 1
        """
        return self._relations.descendants(image_id, depth=depth, limit=limit, page_size=page_size)

    def _assertion(self, instance_id: str, kind: str | None, label: str | None) -> Assertion:
        return Assertion(
            self.instance_ref(instance_id), kind, None if label is None else validation.label(label)
        )


def _check_new(source: Source | None, instance_id: str | None, kind: str | None) -> tuple[str, str]:
    """The instance and the kind of a new image, which have to be given."""
    if instance_id is None:
        raise TypeError(
            "give either instance_id, for a new image, or image_id"
            + (", and a source unless the image is to be copied" if source is None else "")
        )
    if source is None:
        raise TypeError(
            "no source is given, and a new image needs a source; without one, image_id names the "
            "image to copy"
        )
    if kind is None:
        raise TypeError(f"a new image needs a kind: {' or '.join(model.MADE_FROM)}")
    return instance_id, kind


def _check_existing(
    instance_id: str | None, attributes: Mapping[str, Any], **relation: Any
) -> None:
    if instance_id is not None:
        raise TypeError("give either instance_id, for a new image, or image_id")
    given = [*attributes, *(name for name, value in relation.items() if value is not None)]
    if given:
        raise TypeError(f"{', '.join(given)} can only be given to a new image")


def _with_id(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a new image, with an id that is chosen unless it is given."""
    given = attributes.get("id")
    chosen = str(uuid.uuid4()) if given is None else validation.image_id(given)
    return {**attributes, "id": chosen}


def _all(attributes: Mapping[str, Any], properties: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What is given by name of argument, and what has a name of its own."""
    twice = sorted(attributes.keys() & (properties or {}).keys())
    if twice:
        raise TypeError(f"{', '.join(twice)} is given as an argument and in properties too")
    return {**attributes, **(properties or {})}


def _check_spelling(given: Mapping[str, Any], arguments: Iterable[str]) -> None:
    """Make sure that no name that is ``given`` for the image looks like one of ``arguments``.

    :raises TypeError: if one does: otherwise it would be a property of the image, unnoticed
    """
    for name in given:
        for meant in difflib.get_close_matches(name.lower(), arguments, n=1, cutoff=ALIKE):
            raise TypeError(
                f"there is no argument {name}; did you mean {meant}? A property of the image that "
                f"is named so is given as properties={{{name!r}: …}}"
            )


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
def _about(image_id: str, *, is_there: bool = True) -> Iterator[None]:
    """Have errors tell which image they are about, if it is there or may be there by now."""
    try:
        yield
    except GlanceError as error:
        if is_there or error.doubtful:
            error.image_id = image_id
        raise


def _query(assertion: Assertion, filters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The query of a list. A Glance without the filter would ignore instance headers."""
    said = assertion.as_headers()
    yield from (
        (word, said[name])
        for word, name in zip(headers.QUERY, headers.REQUEST, strict=False)
        if name in said
    )
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
        f"image {image_id} was created, but the registry {said}; record it with `openstack image "
        "relation create`, or delete it; and check that every server behind the endpoint has the "
        "filter of related-images",
        image_id=image_id,
    )
