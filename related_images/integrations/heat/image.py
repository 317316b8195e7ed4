"""``OS::RelatedImages::Image``: an image with its metadata and its relation to a server."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from heat.common import exception
from heat.engine import resource, translation

from related_images import model
from related_images.client import (
    Conflict,
    Forbidden,
    GlanceError,
    Image,
    ImportFailed,
    NotFound,
    RelationsClient,
    Stores,
)
from related_images.client.errors import ClientError
from related_images.client.importing import GONE, Importer, StartedImport
from related_images.client.instance_context import image_part
from related_images.client.url_credentials import hide_credentials, without_credentials
from related_images.integrations.heat import (
    image_patch,
    names,
    schema,
    server_check,
)
from related_images.integrations.heat.image_patch import Attempt
from related_images.integrations.heat.image_relation import REPORTS, ImageRelation
from related_images.integrations.heat.property_values import is_known
from related_images.integrations.heat.validation import (
    Template,
    WantedRelation,
    problems,
    wanted_relation,
)
from related_images.protocol import paths

LOG = logging.getLogger(__name__)

Values = Mapping[str, Any]
IsComplete = Callable[[], bool]
"""Returns True if the image is complete; Heat calls it repeatedly."""

PATCH_TYPE: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
ATTEMPT: Final = "attempt"
"""The key of the resource data with the changes of a failed update."""


class ImageLost(ClientError):
    """The image was deleted, or has a status that it cannot leave."""

    code = "heat.image-lost"
    title = "The image did not become active"


class ImageProtected(ClientError):
    """The stack cannot be deleted, because its image is protected."""

    code = "heat.image-protected"
    title = "The image is protected"


class RelatedImage(resource.Resource):  # type: ignore[misc]
    """An image with its metadata, user-defined properties included, and its relation to a server.

    Metadata, tags, members and the relation are updated in place. The image is replaced only if
    its source changes: ``location``, ``image``, or the ``server`` of a snapshot. Attributes that
    the template does not name are not changed.
    """

    default_client_name = "glance"
    always_replace_on_check_failed = False
    properties_schema = schema.PROPERTIES_SCHEMA
    attributes_schema = schema.ATTRIBUTES_SCHEMA

    def translation_rules(self, properties: Any) -> list[Any]:
        """Return Heat's rules that resolve names of images to IDs.

        :param properties: the properties of the resource
        """
        return [
            translation.TranslationRule(
                properties,
                translation.TranslationRule.RESOLVE,
                [name],
                client_plugin=self.client_plugin(),
                finder="find_image_by_name_or_id",
            )
            for name in (names.IMAGE, names.KERNEL_ID, names.RAMDISK_ID)
        ]

    def validate(self) -> None:
        """Check the template before anything is created.

        :raises StackValidationFailed: with all errors
        """
        super().validate()
        _check(self.properties, self.properties.data)

    def handle_create(self) -> IsComplete:
        """Import an image, create a snapshot, or update an existing image.

        :returns: a function that returns ``True`` if the image is complete
        :raises StackValidationFailed: with all errors of the template
        :raises ClientError: if a request fails
        """
        values = dict(self.properties)
        _check(values, values)
        if values[names.LOCATION]:
            return self._import(values)
        if values[names.IMAGE]:
            return self._use_existing(values)
        return self._snapshot(values)

    def check_create_complete(self, is_complete: IsComplete) -> bool:
        """Return True if the image is complete.

        :param is_complete: the result of :meth:`handle_create`
        :raises ClientError: if the import or the snapshot failed
        """
        try:
            return is_complete()
        except GlanceError as error:
            if not error.is_temporary:
                raise
            LOG.info("retrying %s: %s", self.name, error)
            return False  # Heat calls this method again until the stack times out

    def handle_update(self, json_snippet: Any, tmpl_diff: Any, prop_diff: Values) -> None:
        """Update the relation and the image in place.

        :param json_snippet: the new definition of the resource
        :param tmpl_diff: the changed parts of the definition
        :param prop_diff: the changed properties
        :raises StackValidationFailed: with all errors of the template
        :raises ClientError: if a request fails
        """
        before = dict(self.properties)
        after = {**before, **prop_diff}
        _check(after, after)
        self._relation.update(wanted_relation(after))
        self._update_image(self._image(), before, after)

    def needs_replace_with_prop_diff(
        self, changed_properties_set: set[str], after_props: Values, before_props: Values
    ) -> bool:
        """Return True if the image is replaced: if it is a snapshot and the server changes.

        :param changed_properties_set: the names of the changed properties
        :param after_props: the new properties
        :param before_props: the previous properties
        """
        has_other_source = before_props[names.LOCATION] or before_props[names.IMAGE]
        return names.SERVER in changed_properties_set and not has_other_source

    def needs_replace_failed(self) -> bool:
        """Return True to replace a failed resource: if the image is missing or has no data."""
        if self.resource_id is None:
            return True
        image = self._find_image()
        return image is None or (image.status != "active" and not self._is_existing)

    def handle_adopt(self, resource_data: Any = None) -> None:
        """Adopt the image of an abandoned stack.

        The reports in the data are discarded, because the user could claim reports of others.

        :param resource_data: the data of the resource, from the user
        """
        super().handle_adopt(resource_data)
        for key in (REPORTS, ATTEMPT):
            self.data_delete(key)

    def handle_check(self) -> None:
        """Check that the image is active and does not differ from the template.

        :raises heat.common.exception.Error: with the differences
        """
        if self.resource_id is None:
            raise exception.Error("there is no image: it was never created; update the stack")
        values, image = dict(self.properties), self._image()
        if image.status != "active" and not self._is_existing:
            raise exception.Error(f"the image {image.id} is {image.status}, and was active")
        differences = list(self._differences(values, image))
        if differences:
            raise exception.Error(
                f"the image {image.id} differs from the template: {'; '.join(differences)}; "
                "update the stack to correct the image"
            )

    def _differences(self, values: Values, image: Image) -> Iterator[str]:
        operations = image_patch.patch(image, self._wanted(image, values, values, Attempt()), ())
        if operations:
            yield ", ".join(operation["path"] for operation in operations)
        current = self._members(image) if values[names.MEMBERS] else ()
        missing = image_patch.added(current, values[names.MEMBERS] or [])
        if missing:
            yield f"it is not shared with {', '.join(missing)}"
        difference = self._relation.difference(wanted_relation(values))
        if difference:
            yield difference

    def get_live_state(self, resource_properties: Any) -> dict[str, Any]:
        """Return the current values of the properties in the template.

        Heat compares them with the template, so attributes that others added are omitted.

        :param resource_properties: the properties in the template
        :raises heat.common.exception.EntityNotFound: if the image does not exist
        """
        image = self._find_image()
        if image is None:
            raise exception.EntityNotFound(entity="Image", name=self.resource_id)
        properties = resource_properties[names.PROPERTIES] or {}
        plain = [name for name in names.PLAIN if resource_properties[name] is not None]
        members = resource_properties[names.MEMBERS] or []
        current = self._members(image) if members else ()
        return {
            **{name: image.get(name) for name in plain},
            names.PROPERTIES: {name: image[name] for name in properties if name in image},
            names.TAGS: [tag for tag in resource_properties[names.TAGS] if tag in image.tags],
            names.MEMBERS: [project for project in members if project in current],
            **self._live_relation(wanted_relation(resource_properties)),
        }

    def _live_relation(self, wanted: WantedRelation | None) -> dict[str, Any]:
        """Return the recorded label, or an empty kind if the relation is missing."""
        if wanted is None:
            return {}
        recorded = self._relation.recorded(wanted)
        if recorded is None:
            return {names.KIND: ""}
        return {} if wanted.label is None else {names.LABEL: recorded.label}

    def _needs_update(self, *args: Any, **kwargs: Any) -> bool:
        # after a failed check or a failed update the image differs from an unchanged template
        has_failed = self.status == self.FAILED
        return bool(super()._needs_update(*args, **kwargs)) or has_failed

    def handle_delete(self) -> None:
        """Delete the image, or only roll back the relation of an existing image.

        :raises ImageProtected: if the image is protected
        :raises ClientError: if a request fails
        """
        if self.resource_id is None:
            return
        if self._is_existing:
            self._relation.update(None)
            return
        try:
            self._client.glance.request("DELETE", self._path)
        except NotFound:
            return
        except Forbidden as error:
            image = self._find_image()
            if image is None or not image.protected:
                raise
            raise ImageProtected(
                f"the image {image.id} is protected, so neither the image nor the stack was "
                "deleted; set protected: false in the template, or unprotect the image another "
                "way, then delete the stack again"
            ) from error

    def _resolve_attribute(self, name: str) -> Any:
        if self.resource_id is None:
            return None
        if name == names.RELATIONS:
            return self._relations()
        return self._image().get(name)

    def _show_resource(self) -> dict[str, Any]:
        return dict(self._image())

    def _relations(self) -> list[Any]:
        pages = self._client.glance.pages(f"{self._path}/relations", ())
        return [
            relation for page in pages for relation in page.read(lambda body: body["relations"])
        ]

    def _import(self, values: Values) -> IsComplete:
        location = values[names.LOCATION]
        importer = Importer(self._client.glance, location, Stores())
        importer.check_offered(None)
        # the ID is stored first, so that the image is deleted even if the response is lost
        self.resource_id_set(str(uuid.uuid4()))
        image = self._create(values)
        self._update_image(image, {}, values)
        with _hide_credentials_in_errors(location):
            started = importer.start(str(self.resource_id))
        return lambda: _is_imported(started, location)

    def _create(self, values: Values) -> Image:
        body = {names.NAME: self.physical_resource_name(), **_attributes(values)}
        body |= {names.ID: self.resource_id, names.TAGS: values[names.TAGS] or []}
        wanted = wanted_relation(values)
        if wanted and wanted.kind in model.MADE_FROM:
            return self._relation.create(wanted, body)
        image = self._client.glance.request("POST", paths.IMAGES, json=body).read(Image)
        self._relation.update(wanted)
        return image

    def _use_existing(self, values: Values) -> IsComplete:
        self.resource_id_set(values[names.IMAGE])
        self._relation.update(wanted_relation(values))
        self._update_image(self._image(), {}, values)
        return lambda: True

    def _snapshot(self, values: Values) -> IsComplete:
        name = values[names.NAME] or self.physical_resource_name()
        image_id = self.client("nova").servers.create_image(values[names.SERVER], name)
        self.resource_id_set(str(image_id))
        try:
            self._relation.update(wanted_relation(values))
        except NotFound as error:
            raise self._snapshot_failed(values) from error
        return lambda: self._is_snapshot_complete(values)

    def _is_snapshot_complete(self, values: Values) -> bool:
        """Update the metadata of a complete snapshot; return False while Nova uploads it."""
        image = self._find_image()
        if image is None or image.status in GONE:
            raise self._snapshot_failed(values)
        if image.status != "active":
            return False
        self._update_image(image, {}, values)
        return True

    def _snapshot_failed(self, values: Values) -> ImageLost:
        return ImageLost(
            f"the snapshot {self.resource_id} of server {values[names.SERVER]} failed: Nova "
            "deleted the image again; see Nova's log"
        )

    def _update_image(self, image: Image, before: Values, after: Values) -> None:
        """Update metadata and members, and revert the changes of a failed update."""
        failed = self._failed_attempt()
        old = {*(before.get(names.MEMBERS) or ()), *failed.members}
        new = after[names.MEMBERS] or []
        current = self._members(image) if old or new else ()
        if before:
            attempt = failed.merge(_attempt(image, current, before, after))
            self.data_set(ATTEMPT, attempt.to_json())
        for project in sorted(old.intersection(current).difference(new)):
            self._remove_member(project)
        operations = image_patch.patch(
            image,
            self._wanted(image, before, after, failed),
            (_removable(before) | failed.to_remove()) - _attributes(after).keys(),
        )
        if operations:
            self._client.glance.request("PATCH", self._path, json=operations, headers=PATCH_TYPE)
        for project in image_patch.added(current, new):
            self._add_member(project)
        self.data_delete(ATTEMPT)

    def _wanted(
        self, image: Image, before: Values, after: Values, failed: Attempt
    ) -> dict[str, Any]:
        wanted = self._defaults(before, after) | failed.to_restore() | _attributes(after)
        old = [*(before.get(names.TAGS) or ()), *failed.tags]
        return wanted | {names.TAGS: image_patch.tags(image.tags, old, after[names.TAGS] or [])}

    def _defaults(self, before: Values, after: Values) -> dict[str, Any]:
        """Return the defaults of attributes that the template does not name any more."""
        defaults = {**names.DEFAULTS, names.NAME: self.physical_resource_name()}
        return {
            name: value
            for name, value in defaults.items()
            if before.get(name) is not None and after[name] is None
        }

    def _failed_attempt(self) -> Attempt:
        text = self.data().get(ATTEMPT)
        return Attempt() if text is None else Attempt.from_json(text)

    def _members(self, image: Image) -> Collection[str]:
        """Return the projects that share the image; Glance lists them for shared images only."""
        if image.visibility != "shared":
            return ()
        answer = self._client.glance.request("GET", f"{self._path}/members")
        return answer.read(lambda body: [member["member_id"] for member in body["members"]])

    def _add_member(self, project: str) -> None:
        try:
            self._client.glance.request("POST", f"{self._path}/members", json={"member": project})
        except Conflict:
            return  # the project is a member already

    def _remove_member(self, project: str) -> None:
        try:
            self._client.glance.request("DELETE", f"{self._path}/members/{project}")
        except NotFound:
            return

    def _image(self) -> Image:
        return self._client.glance.request("GET", self._path).read(Image)

    def _find_image(self) -> Image | None:
        if self.resource_id is None:
            return None
        try:
            return self._image()
        except NotFound:
            return None

    @property
    def _path(self) -> str:
        return f"{paths.IMAGES}/{self.resource_id}"

    @property
    def _is_existing(self) -> bool:
        return bool(self.properties[names.IMAGE])

    @cached_property
    def _client(self) -> RelationsClient:
        return RelationsClient(self.client())

    @cached_property
    def _relation(self) -> ImageRelation:
        return ImageRelation(self, image_part(self.client()), self._authorize)

    def _authorize(self, wanted: WantedRelation, image_exists: bool) -> str | None:
        return server_check.authorize(
            self.client("nova"),
            wanted,
            self._image() if image_exists else None,
            self.context.project_id,
        )


@contextmanager
def _hide_credentials_in_errors(location: str) -> Iterator[None]:
    """Remove credentials of the location from errors, which the stack shows as its reason."""
    try:
        yield
    except ClientError as error:
        error.args = (hide_credentials(str(error), location),)
        raise


def _is_imported(started: StartedImport, location: str) -> bool:
    """Return True if the import has succeeded.

    :raises ImportFailed: if it has failed; with the location, which Glance's message does not have
    """
    try:
        with _hide_credentials_in_errors(location):
            return started.poll()[1]
    except ImportFailed as error:
        raise ImportFailed(
            f"{without_credentials(location)} could not be imported: {error}; update the stack "
            "to create the image again",
            image_id=error.image_id,
            image_status=error.image_status,
        ) from error


def _attributes(values: Values) -> dict[str, Any]:
    """Return the attributes of the image in a template, user-defined properties included."""
    plain = {name: values[name] for name in names.PLAIN if values[name] is not None}
    return plain | (values[names.PROPERTIES] or {})


def _removable(values: Values) -> set[str]:
    """Return the names of attributes in a template that can be removed from an image."""
    optional = {name for name in names.OPTIONAL if values.get(name) is not None}
    return optional | set(values.get(names.PROPERTIES) or {})


def _attempt(image: Image, members: Collection[str], before: Values, after: Values) -> Attempt:
    """Return the changes of an update to attributes that the template ``before`` did not name."""
    old = before.get(names.PROPERTIES) or {}
    new = [
        name
        for name in _attributes(after)
        if name not in old and before.get(name) is None and _is_restorable(name, image)
    ]
    return Attempt(
        was={name: image.get(name) for name in new},
        tags=tuple(image_patch.added(image.tags, after[names.TAGS] or [])),
        members=tuple(image_patch.added(members, after[names.MEMBERS] or [])),
    )


def _is_restorable(name: str, image: Image) -> bool:
    """Return True if an attribute can be set to its current value later."""
    if name in (names.DISK_FORMAT, names.CONTAINER_FORMAT):
        return False  # Glance refuses a change after the image has data
    return image.get(name) is not None or name not in (names.NAME, *names.DEFAULTS)


def _check(values: Values, raw: Values) -> None:
    """Raise if the template has errors.

    :raises StackValidationFailed: with all errors
    """
    found = problems(Template(values, raw, is_known))
    if found:
        raise exception.StackValidationFailed(message="; ".join(found))
