"""The client for the images of the servers of one installation."""

import difflib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final

from related_images import model, validation
from related_images.client import image_list
from related_images.client.errors import (
    Conflict,
    GlanceError,
    ImageNotOfInstance,
    NotFound,
    NotInstanceAware,
)
from related_images.client.glance import DATA_HEADERS, PageSizes, image_path
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
from related_images.client.results import FilterInfo, Image
from related_images.model import (
    Ancestor,
    Dependent,
    DependentSummary,
    Descendant,
    Heartbeat,
    Instance,
    InstanceRef,
    Relation,
    Usage,
)
from related_images.protocol import headers, paths
from related_images.protocol.headers import Assertion

SIMILARITY: Final = 0.75
"""The similarity of two names, from 0 to 1, from which one may be the other, misspelled.

With this value ``knd`` is similar to ``kind``, and no property in Glance's schema is similar to an
argument.
"""


CREATED_AT: Final = "created_at"
"""A filter of Glance that is similar to arguments of ``list``."""

LIST_ARGUMENTS: Final = (
    *("kind", "label", "source", "created_after", "created_before", "in_use", "descends_from"),
    *("limit", "page_size", "properties"),
)
IMPORT_ARGUMENTS: Final = (
    *("kind", "label", "method", "stores", "deadline", "progress", "properties"),
)


class InstanceAwareImageService:
    """Create, list and delete the images of the servers, or volumes, of one installation.

    :param client: a python-glanceclient ``Client``, an openstacksdk ``Connection`` or a
        keystoneauth1 ``Adapter`` of the image service; or a :class:`RelationsClient`, to send its
        requests through this one and to ask only once for :meth:`info`
    :param installation_uuid: UUID of the deployment of Nova or Cinder
    :param resource_type: ``server``, ``volume``, ``volume-snapshot`` or ``volume-backup``; all
        methods with an ``instance_id`` and the lists are about resources of this type
    :raises TypeError: if ``client`` has another type
    :raises TupleMalformed: if ``installation_uuid`` is not a UUID
    :raises ResourceTypeUnknown: if ``resource_type`` is unknown

    Every method raises :exc:`BadInput` for a malformed argument, before it sends a request,
    :exc:`NotInstanceAware` if Glance does not have the filter, before it creates, lists or deletes
    anything, and :exc:`GlanceError` if a request fails. Threads may share one service.

    A method that returns an iterator requests each page when the caller reads it. ``limit`` is the
    maximum number of items of all pages together, and ``page_size`` that of one request. Both are
    whole numbers from 1. By default all items are returned, with Glance's default page size.
    """

    def __init__(
        self, client: object, installation_uuid: str, resource_type: str = model.SERVER
    ) -> None:
        self.installation_uuid = validation.installation_uuid(installation_uuid)
        self.resource_type = model.resource_type(resource_type)
        self._relations = client if isinstance(client, RelationsClient) else RelationsClient(client)
        self._glance = self._relations.glance

    def instance_ref(self, instance_id: str) -> InstanceRef:
        """Return the reference to a resource of this installation and type.

        :param instance_id: ID of the resource
        """
        return InstanceRef(self.installation_uuid, instance_id, self.resource_type)

    def info(self) -> FilterInfo:
        """Return the version and settings of the filter, which are requested only once."""
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
        """Create an image without data, and record it for a server.

        The client chooses the ID of the image, unless the caller does. So it can look for the image
        if the response is lost. The image is created once. If the result is not known, the error
        has the ``image_id``.

        :param instance_id: ID of the server
        :param kind: ``snapshot``, ``backup`` or ``shelved``
        :param label: label of the relation, such as ``daily``
        :param properties: attributes of the image whose names are arguments, such as ``label``
        :param attributes: other attributes of the image, such as ``name``, ``disk_format``
        :returns: the image
        :raises TypeError: if the name of an attribute is similar to that of an argument; pass such
            an attribute in ``properties``
        :raises NotInstanceAware: also if Glance did not acknowledge the relation, with the
            ``image_id``
        """
        _check_spelling(attributes, ("label", "properties"))
        return self._create(*self._new(instance_id, kind, label, _merge(attributes, properties)))

    def _new(
        self, instance_id: str, kind: str, label: str | None, attributes: Mapping[str, Any]
    ) -> tuple[Assertion, dict[str, Any]]:
        """Return the checked relation and attributes of a new image."""
        model.kind(kind, model.MADE_FROM)
        return self._assertion(instance_id, kind, label), _with_id(attributes)

    def _create(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        self.info().require_type(self.resource_type)
        try:
            return self._create_once(assertion, body)
        except GlanceError as error:
            if not error.doubtful:
                raise
            found = self._find_created(assertion, body["id"], error)
        return found or self._create_again(assertion, body)

    def _create_again(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        try:
            return self._create_once(assertion, body)
        except Conflict as error:
            # Glance processed the first request in the meantime
            found = self._find_created(assertion, body["id"], error)
            if found is None:
                raise
            return found

    def _create_once(self, assertion: Assertion, body: Mapping[str, Any]) -> Image:
        sent = assertion.as_headers()
        with _image_id_in_errors(body["id"], exists=False):
            answer = self._glance.request("POST", paths.IMAGES, json=dict(body), headers=sent)
            recorded = answer.headers.get(headers.RECORDED)
            if recorded != assertion.kind:
                raise _unrecorded(body["id"], f"acknowledged {recorded}, not {assertion.kind}")
            return answer.read(lambda shown: Image(shown, recorded))

    def _find_created(self, assertion: Assertion, image_id: str, lost: GlanceError) -> Image | None:
        """Return the image whose creation has no response; ``None`` if it does not exist."""
        try:
            image = self.get(image_id)
            relations = tuple(self._relations.relations_of_image(image_id))
        except NotFound:
            return None
        except GlanceError:
            lost.image_id = image_id  # it may exist
            raise lost from None
        if not any((r.instance, r.kind) == (assertion.instance, assertion.kind) for r in relations):
            raise _unrecorded(image_id, "does not show this relation")
        return Image(image, assertion.kind)

    def get(self, image_id: str) -> Image:
        """Return an image in its current state.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        return self._glance.request("GET", image_path(image_id)).read(Image)

    def upload(self, image_id: str, data: Data) -> None:
        """Upload the data of an image. They are streamed, and sent once.

        :param image_id: ID of the image
        :param data: bytes, a binary file, the ``Path`` of a file, or an iterable of bytes
        :raises UploadInvalid: if it has another type, or the file cannot be read
        :raises Conflict: if the image already has data
        :raises PayloadTooLarge: if the data exceed the quota
        """
        path = f"{image_path(image_id)}/file"
        check_data(data)
        with opened(data) as body:
            self._glance.request("PUT", path, data=body, headers=DATA_HEADERS)

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
        """Import an image with Glance's image import, and wait until it is active.

        With ``instance_id`` a new image is created. ``image_id`` is the ID of an existing image: a
        queued one, or without ``source`` an active one to copy to more stores.

        Arguments are checked before anything is created or sent.

        :param source: bytes, a binary file, a ``Path`` or an iterable of bytes (``glance-direct``),
            a URL (``web-download``), a :class:`RemoteImage` (``glance-download``), or ``None``
            (``copy-image``)
        :param kind: as for :meth:`create`, like ``label``, ``properties`` and ``attributes``; a new
            image needs the kind and both formats
        :param method: the expected import method; if the source has another one, nothing is done
        :param stores: the stores to import to; default: Glance's default store
        :param deadline: seconds to wait
        :param progress: called with the image after each request for its state
        :returns: the image
        :raises TypeError: if arguments are missing or exclude each other, or if the name of an
            attribute is similar to that of an argument
        :raises ImportInvalid: if an argument is invalid; nothing was created
        :raises ImportNotOffered: if the deployment does not have the import method; nothing was
            created
        :raises StoreNotOffered: if the deployment does not have a store; nothing was created
        :raises ImportFailed: if Glance refused the import, or the import failed
        :raises ImportUnfinished: if the import did not end within ``deadline``
        """
        _check_spelling(attributes, IMPORT_ARGUMENTS)
        merged = _merge(attributes, properties)
        importer = Importer(self._glance, source, Stores() if stores is None else stores)
        check_waiting(deadline, progress)
        if image_id is not None:
            _check_existing(instance_id, merged, kind=kind, label=label)
            validation.image_id(image_id)
            self.info()
            importer.check_offered(method)
            importer.check_image(image_id)
        else:
            instance_id, kind = _check_new(source, instance_id, kind)
            new = self._new(instance_id, kind, label, merged)
            check_formats(merged)
            self.info().require_type(self.resource_type)
            importer.check_offered(method)
            importer.check_formats(merged)
            image_id = str(self._create(*new).id)
        with _image_id_in_errors(image_id):
            return importer.run(image_id, deadline, progress)

    def wait_for_import(
        self,
        image_id: str,
        *,
        deadline: float = DEADLINE,
        progress: Progress = ignore_progress,
    ) -> Image:
        """Wait for an import that this process or another one started.

        If there are several imports into the image, this is the one in progress, else the latest.

        :param image_id: ID of the image
        :param deadline: as for :meth:`import_image`, like ``progress``
        :returns: the image
        :raises ImportFailed: if the import failed, or if none is in progress and the image is not
            active
        :raises ImportUnfinished: if the import did not end within ``deadline``
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        check_waiting(deadline, progress)
        return wait(StartedImport(self._glance, image_id), deadline, progress)

    def list(
        self,
        instance_id: str | None = None,
        *,
        kind: str | None = None,
        label: str | None = None,
        source: str | None = None,
        created_after: date | str | None = None,
        created_before: date | str | None = None,
        in_use: bool | None = None,
        descends_from: str | None = None,
        limit: int | None = None,
        page_size: int | None = None,
        properties: Mapping[str, str] | None = None,
        **filters: str | int | tuple[str, ...],
    ) -> Iterator[Image]:
        """Return the images of a server that the caller may see; none for an unknown server.

        Without a server, return the images of all servers, of any installation. If ``in_use`` or
        ``descends_from`` are the only conditions, these need not be images of servers.

        :param instance_id: ID of the server; default: all servers
        :param kind: kind of the relation; default: ``snapshot``, ``backup`` and ``shelved``
        :param label: label of the relation; default: any
        :param source: how the relation was reported; default: any
        :param created_after: the relation was recorded after this time
        :param created_before: the relation was recorded before this time
        :param in_use: whether live servers or volumes use the image; default: both
        :param descends_from: ID of an image from which the image descends; default: any
        :param properties: filters whose names are arguments, such as ``label``
        :param filters: other filters and options of Glance, such as ``status``, ``visibility``,
            ``sort_key``, ``sort_dir``
        :raises TypeError: if the name of a filter is similar to that of an argument; pass such a
            filter in ``properties``
        :raises Conflict: if Glance lists too many other images before the first one of this list
        :raises NotInstanceAware: also if Glance did not acknowledge the filters
        """
        spelled = {name: value for name, value in filters.items() if name != CREATED_AT}
        _check_spelling(spelled, LIST_ARGUMENTS)
        wanted = image_list.restriction(
            kind=kind,
            label=label,
            source=source,
            created_after=created_after,
            created_before=created_before,
            in_use=in_use,
            descends_from=descends_from,
        )
        ref = None if instance_id is None else self.instance_ref(instance_id)
        if ref is not None:
            is_server = ref.resource_type == model.SERVER
            named = None if is_server else ref.resource_type
            wanted = replace(wanted, instance=ref, resource_type=named)
        elif wanted.asks_for_relation or not wanted.query():
            wanted = replace(wanted, resource_type=self.resource_type)
        sizes = PageSizes.of(limit, page_size)
        found = image_list.images(self._glance, wanted, _merge(filters, properties), sizes)
        self.info().require_type(self.resource_type)
        return found

    def backups(
        self,
        instance_id: str,
        label: str | None = None,
        *,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: Any,
    ) -> Iterator[Image]:
        """Return the active backups of a server, newest first.

        :param instance_id: ID of the server
        :param label: label of the relation; default: any
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

        :param image_id: ID of the image
        :param instance_id: delete the image only if it was made from this server
        :param force: also delete an image from which live servers were started; needs an admin role
        :raises ImageNotOfInstance: if it was not made from ``instance_id``; it is not deleted
        :raises Conflict: if live servers were started from the image, with delete protection
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        validation.flag("force", force)
        if instance_id is not None:
            self._check_made_from(self.instance_ref(instance_id), image_id)
        self._relations.delete_image(image_id, force=force)

    def _check_made_from(self, instance: InstanceRef, image_id: str) -> None:
        for relation in self._relations.relations_of_image(image_id):
            matches = relation.instance == instance and relation.kind in model.MADE_FROM
            if matches and self._is_of_current_image(relation):
                return
        raise ImageNotOfInstance(
            f"image {image_id} is not recorded as made from the {instance}; nothing "
            f"was deleted; `openstack image relation list {image_id}` lists its relations",
            image_id=image_id,
        )

    def _is_of_current_image(self, relation: Relation) -> bool:
        """Return True unless the relation is of a deleted image that had the same ID."""
        if relation.image_deleted_at is not None or relation.image_created_at is None:
            return relation.image_deleted_at is None
        image = self.get(relation.image_id)
        return relation.image_created_at == validation.parse_time("created_at", image.created_at)

    def relations(
        self,
        instance_id: str | None = None,
        *,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: Filter,
    ) -> Iterator[Relation]:
        """Return the relations of this installation, newest first.

        :param instance_id: ID of the server; default: all servers
        :param filters: ``image_id``, ``project_id``, ``kind``, ``label``, ``source``,
            ``created_after``, ``created_before`` and ``in_use``
        """
        return self._relations.relations(
            installation_uuid=self.installation_uuid,
            resource_type=self.resource_type,
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
        """Record the relation of an existing image to a server. Repeating it changes nothing.

        :param instance_id: ID of the server
        :param image_id: ID of the image
        :param kind: ``snapshot``, ``backup``, ``shelved`` or ``boot``
        :param label: label of the relation, such as ``daily``
        :param instance_project_id: ID of the project of the server, which may see a ``boot``
            relation instead of the project of the image
        :returns: the recorded relation
        :raises NotFound: if the image does not exist or the caller may not see it
        :raises Conflict: if the relation is recorded with another label
        :raises Forbidden: if the caller has no recording role
        """
        instance = self.instance_ref(instance_id)
        return self._relations.attach(instance, image_id, kind, label, instance_project_id)

    def detach(self, instance_id: str, image_id: str, *, kind: str) -> None:
        """Delete a relation; the image is not deleted.

        :param instance_id: ID of the server
        :param image_id: ID of the image
        :param kind: ``snapshot``, ``backup``, ``shelved`` or ``boot``
        :raises NotFound: if the relation is not recorded
        :raises Forbidden: if the caller has neither a recording role nor an admin role
        """
        self._relations.detach(self.instance_ref(instance_id), image_id, kind)

    def instances(
        self, *, limit: int | None = None, page_size: int | None = None, **filters: Filter
    ) -> Iterator[Instance]:
        """Return the servers of this installation, with the number of their images of each kind.

        :param filters: ``instance_id``, ``image_id``, ``project_id``, ``kind``, ``label``,
            ``source``, ``created_after``, ``created_before``, ``in_use`` and
            ``latest_before`` (the server has no later image of the ``kind``)
        """
        return self._relations.instances(
            installation_uuid=self.installation_uuid,
            resource_type=self.resource_type,
            limit=limit,
            page_size=page_size,
            **filters,
        )

    def instance_ended(self, instance_id: str) -> None:
        """Record that a server was deleted. Its images stay, and it does not use an image any more.

        :param instance_id: ID of the server
        :raises NotFound: if the server is not recorded
        :raises Forbidden: if the caller has neither a recording role nor an admin role
        """
        self._relations.instance_ended(self.instance_ref(instance_id))

    def usages(
        self,
        image_ids: Iterable[str],
        *,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Usage]:
        """Return the number of servers started from each image, in the order of the IDs.

        Servers of all installations are counted.

        :param image_ids: IDs of images
        :param limit: maximum number of images; others are ignored
        :param page_size: number of images of one request; 1000 by default, which is the maximum
        """
        return self._relations.usages(image_ids, limit=limit, page_size=page_size)

    def heartbeat(self, witness: str, process: str, since: datetime, until: datetime) -> Heartbeat:
        """Report that a process of a witness of this installation lost nothing for a time.

        A witness has a gap if it is silent for more than three minutes, or if one of its processes
        lost something. The next ``since`` of this process is then later than its last ``until``.

        :param witness: ``nova-api``, ``nova-bus``, ``cinder-api`` or ``cinder-bus``
        :param process: name of the process, which differs after a restart
        :param since: since when it has lost nothing
        :param until: the time until which it has reported everything; not in the future
        :returns: the whole interval that the process covers, which may be longer
        :raises Forbidden: if the caller may not report on the installation
        """
        new = Heartbeat(self.installation_uuid, witness, process, since, until)
        return self._relations.heartbeat(new)

    def ancestry(
        self, image_id: str, *, limit: int | None = None, page_size: int | None = None
    ) -> Iterator[Ancestor]:
        """Return the images that an image descends from, the nearest first, of any installation.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        return self._relations.ancestry(image_id, limit=limit, page_size=page_size)

    def descendants(
        self,
        image_id: str,
        *,
        depth: int | None = None,
        limit: int | None = None,
        page_size: int | None = None,
    ) -> Iterator[Descendant]:
        """Return the images made from servers that were started from an image, of any installation.

        :param image_id: ID of the image
        :param depth: number of generations, from 1; default: Glance's maximum
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        return self._relations.descendants(image_id, depth=depth, limit=limit, page_size=page_size)

    def dependents(
        self,
        image_id: str,
        *,
        live: bool = True,
        depth: int | None = None,
        limit: int | None = None,
        page_size: int | None = None,
        **filters: str | None,
    ) -> Iterator[Dependent]:
        """Return the resources that depend on an image, or on an image that was made from it.

        :param image_id: ID of the image
        :param live: ``False`` for the resources that no longer depend on it
        :param depth: number of generations of images; 1 for the image itself; default: all
        :param filters: ``resource_type`` and ``project_id``
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        return self._relations.dependents(
            image_id, live=live, depth=depth, limit=limit, page_size=page_size, **filters
        )

    def dependent_summary(self, image_id: str) -> DependentSummary:
        """Return the number of the resources that depend on an image, by type.

        :param image_id: ID of the image
        :raises NotFound: if the image does not exist or the caller may not see it
        """
        return self._relations.dependent_summary(image_id)

    def _assertion(self, instance_id: str, kind: str | None, label: str | None) -> Assertion:
        return Assertion(
            self.instance_ref(instance_id), kind, None if label is None else validation.label(label)
        )


def _check_new(source: Source | None, instance_id: str | None, kind: str | None) -> tuple[str, str]:
    """Return the server ID and the kind of a new image.

    :raises TypeError: if one of them or the source is missing
    """
    if instance_id is None:
        raise TypeError(
            "pass either instance_id, for a new image, or image_id"
            + (", and a source unless the image is to be copied" if source is None else "")
        )
    if source is None:
        raise TypeError(
            "a new image needs a source; to copy an existing image, pass image_id instead of "
            "instance_id"
        )
    if kind is None:
        raise TypeError(f"a new image needs a kind: {' or '.join(model.MADE_FROM)}")
    return instance_id, kind


def _check_existing(
    instance_id: str | None, attributes: Mapping[str, Any], **relation: Any
) -> None:
    if instance_id is not None:
        raise TypeError("pass either instance_id, for a new image, or image_id")
    given = [*attributes, *(name for name, value in relation.items() if value is not None)]
    if given:
        raise TypeError(f"{', '.join(given)} can only be passed for a new image")


def _with_id(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a new image with an ID, a random one by default."""
    id = attributes.get("id")
    return {**attributes, "id": str(uuid.uuid4()) if id is None else validation.image_id(id)}


def _merge(
    attributes: Mapping[str, Any], properties: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """Return the attributes in keyword arguments and in ``properties`` together.

    :raises TypeError: if one is in both
    """
    twice = sorted(attributes.keys() & (properties or {}).keys())
    if twice:
        raise TypeError(f"{', '.join(twice)} is both an argument and in properties; pass it once")
    return {**attributes, **(properties or {})}


def _check_spelling(given: Mapping[str, Any], arguments: Iterable[str]) -> None:
    """Check that no name in ``given`` is similar to one of ``arguments``.

    :raises TypeError: if one is; otherwise a misspelled argument would become a property
    """
    for name in given:
        for similar in difflib.get_close_matches(name.lower(), arguments, n=1, cutoff=SIMILARITY):
            raise TypeError(
                f"there is no argument {name}; did you mean {similar}? Pass an attribute of the "
                f"image with this name as properties={{{name!r}: …}}"
            )


@contextmanager
def _image_id_in_errors(image_id: str, *, exists: bool = True) -> Iterator[None]:
    """Set the image ID of errors, if the image exists or may exist."""
    try:
        yield
    except GlanceError as error:
        if exists or error.doubtful:
            error.image_id = image_id
        raise


def _unrecorded(image_id: str, result: str) -> NotInstanceAware:
    return NotInstanceAware(
        f"image {image_id} was created, but Glance {result}; record it with `openstack image "
        "relation create`, or delete it; and check that every process behind the endpoint has the "
        "related-images filter",
        image_id=image_id,
    )
