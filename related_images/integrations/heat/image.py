"""``OS::RelatedImages::Image``: an image with its metadata and its instance."""

import logging
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

from heat.common import exception
from heat.engine import resource, translation

from related_images.client import (
    Image,
    ImportFailed,
    InstanceAwareImageService,
    NotThere,
    RegistryError,
    RelationsClient,
    StateConflict,
    Stores,
)
from related_images.client.context import image_part
from related_images.client.errors import ClientError
from related_images.client.importing import GONE, Importer, StartedImport
from related_images.errors import RelationConflict
from related_images.integrations.heat import changes, recording, schema, validation
from related_images.integrations.heat.recording import telling_who_may_record
from related_images.integrations.heat.validation import WantedRelation, wanted_relation
from related_images.wire import routes, words

LOG = logging.getLogger(__name__)

Values = Mapping[str, Any]
IsDone = Callable[[], bool]

PATCH_TYPE: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
NOT_BY_NAME: Final = ("instance_id", "kind", "label")
"""User-defined properties whose names mean something else where an image is created."""


class ImageLost(ClientError):
    """The image went away, or to a status from which it does not come back."""

    code = "heat.image-lost"
    title = "The image did not become active"


class RelatedImage(resource.Resource):  # type: ignore[misc]
    """An image whose every property, user-defined ones among them, is kept as the template says.

    Metadata, tags, members and the relation to an instance are changed in place. Only another
    source makes another image: ``location``, ``image``, or the ``server`` that it is a snapshot of.
    What the template does not name is left alone.
    """

    default_client_name = "glance"
    always_replace_on_check_failed = False
    properties_schema = schema.PROPERTIES_SCHEMA
    attributes_schema = schema.ATTRIBUTES_SCHEMA

    def translation_rules(self, properties: Any) -> list[Any]:
        return [
            translation.TranslationRule(
                properties,
                translation.TranslationRule.RESOLVE,
                [name],
                client_plugin=self.client_plugin(),
                finder="find_image_by_name_or_id",
            )
            for name in (schema.IMAGE, schema.KERNEL_ID, schema.RAMDISK_ID)
        ]

    def validate(self) -> None:
        """Find what is wrong before anything is made.

        :raises StackValidationFailed: with everything that is wrong
        """
        super().validate()
        validation.check(self.properties, self.properties.data)

    def handle_create(self) -> IsDone:
        values = dict(self.properties)
        validation.check(values, values)
        if values[schema.LOCATION]:
            return self._import(values)
        if values[schema.IMAGE]:
            return self._adopt(values)
        return self._snapshot(values)

    def check_create_complete(self, is_done: IsDone) -> bool:
        try:
            return is_done()
        except RegistryError as error:
            if not error.may_pass:
                raise
            LOG.info("asking again for %s: %s", self.name, error)
            return False  # Heat comes again, until the time of the stack is over

    def handle_update(self, json_snippet: Any, tmpl_diff: Any, prop_diff: Values) -> None:
        before = dict(self.properties)
        after = {**before, **prop_diff}
        validation.check(after, after)
        self._relate(wanted_relation(before), wanted_relation(after))
        self._bring_in_line(self._image(), before, after)

    def needs_replace_with_prop_diff(
        self, changed_properties_set: set[str], after_props: Values, before_props: Values
    ) -> bool:
        """A snapshot of another server is another image."""
        elsewhere = before_props[schema.LOCATION] or before_props[schema.IMAGE]
        return schema.SERVER in changed_properties_set and not elsewhere

    def needs_replace_failed(self) -> bool:
        """A change that failed is tried again on the image that is there, if it has its data."""
        if self.resource_id is None:
            return True
        image = self._image_if_there()
        return image is None or (image.status != "active" and not self._is_adopted)

    def handle_check(self) -> None:
        values, image = dict(self.properties), self._image()
        if image.status != "active" and not self._is_adopted:
            raise exception.Error(f"the image {image.id} is {image.status}, and was active")
        operations = changes.patch(image, self._wanted(image, values, values), ())
        if operations:
            paths = ", ".join(operation["path"] for operation in operations)
            raise exception.Error(
                f"the image {image.id} is not as the template says any more: {paths}; an update of "
                "the stack puts it right"
            )

    def get_live_state(self, resource_properties: Any) -> dict[str, Any]:
        """What the template names of the image, as it is now; what others added is not its own."""
        image = self._image_if_there()
        if image is None:
            raise exception.EntityNotFound(entity="Image", name=self.resource_id)
        named = resource_properties[schema.PROPERTIES] or {}
        plain = [name for name in schema.PLAIN if resource_properties[name] is not None]
        return {
            **{name: image.get(name) for name in plain},
            schema.PROPERTIES: {name: image[name] for name in named if name in image},
            schema.TAGS: [tag for tag in resource_properties[schema.TAGS] if tag in image.tags],
        }

    def _needs_update(self, *given: Any, **more: Any) -> bool:
        # what a check found wrong is put right, though the template says what it said before
        is_wrong = self.state == (self.CHECK, self.FAILED)
        return bool(super()._needs_update(*given, **more)) or is_wrong

    def handle_delete(self) -> None:
        if self.resource_id is None:
            return
        if self._is_adopted:
            self._relate(wanted_relation(self.properties), None)
            return
        try:
            self._relations.registry.ask("DELETE", self._path)
        except NotThere:
            return

    def _resolve_attribute(self, name: str) -> Any:
        if self.resource_id is None:
            return None
        if name == schema.RELATIONS:
            return self._shown_relations()
        return self._image().get(name)

    def _show_resource(self) -> dict[str, Any]:
        return dict(self._image())

    def _shown_relations(self) -> list[Any]:
        pages = self._relations.registry.pages(f"{self._path}/relations", ())
        return [shown for page in pages for shown in page.read(lambda body: body["relations"])]

    def _import(self, values: Values) -> IsDone:
        importer = Importer(self._relations.registry, values[schema.LOCATION], Stores())
        importer.check_offered(None)
        # known before it is made, so that it is found and deleted whatever becomes of the answer
        self.resource_id_set(str(uuid.uuid4()))
        image = self._create(values)
        self._bring_in_line(image, {}, values)
        started = importer.start(str(self.resource_id))
        return lambda: _has_come(started, values[schema.LOCATION])

    def _create(self, values: Values) -> Image:
        body = {schema.NAME: self.physical_resource_name(), **_named(values)}
        body |= {schema.ID: self.resource_id, schema.TAGS: values[schema.TAGS] or []}
        relation = wanted_relation(values)
        if relation and relation.kind in words.MADE_FROM:
            return self._create_recorded(relation, body)
        image = self._relations.registry.ask("POST", routes.IMAGES, json=body).read(Image)
        self._relate(None, relation)
        return image

    def _create_recorded(self, relation: WantedRelation, body: Mapping[str, Any]) -> Image:
        instance = relation.instance
        images = InstanceAwareImageService(self._recording_adapter, instance.installation_uuid)
        attributes = {name: value for name, value in body.items() if name not in NOT_BY_NAME}
        with telling_who_may_record():
            return images.create(
                instance.instance_id, kind=relation.kind, label=relation.label, **attributes
            )

    def _adopt(self, values: Values) -> IsDone:
        self.resource_id_set(values[schema.IMAGE])
        self._relate(None, wanted_relation(values))
        self._bring_in_line(self._image(), {}, values)
        return lambda: True

    def _snapshot(self, values: Values) -> IsDone:
        name = values[schema.NAME] or self.physical_resource_name()
        made = self.client("nova").servers.create_image(values[schema.SERVER], name)
        self.resource_id_set(str(made))
        try:
            self._relate(None, wanted_relation(values))
        except NotThere as error:
            raise self._taken_away(values) from error
        return lambda: self._is_taken(values)

    def _is_taken(self, values: Values) -> bool:
        """Whether Nova has uploaded the snapshot; if so, the rest is put on it."""
        image = self._image_if_there()
        if image is None or image.status in GONE:
            raise self._taken_away(values)
        if image.status != "active":
            return False
        self._bring_in_line(image, {}, values)
        return True

    def _taken_away(self, values: Values) -> ImageLost:
        return ImageLost(
            f"the snapshot {self.resource_id} of server {values[schema.SERVER]} failed: Nova took "
            "the image away again; its log says why"
        )

    def _bring_in_line(self, image: Image, before: Values, after: Values) -> None:
        """Change what the template changed: members, and the rest by one JSON patch."""
        old, new = before.get(schema.MEMBERS) or [], after[schema.MEMBERS] or []
        for project in changes.added(new, old):
            self._take_member_away(project)
        operations = changes.patch(
            image, self._wanted(image, before, after), _unwanted(before, after)
        )
        if operations:
            self._relations.registry.ask("PATCH", self._path, json=operations, headers=PATCH_TYPE)
        for project in changes.added(old, new):
            self._add_member(project)

    def _wanted(self, image: Image, before: Values, after: Values) -> dict[str, Any]:
        wanted = self._restored(before, after) | _named(after)
        old, new = before.get(schema.TAGS) or [], after[schema.TAGS] or []
        return wanted | {schema.TAGS: changes.tags(image.tags, old, new)}

    def _restored(self, before: Values, after: Values) -> dict[str, Any]:
        """What the template no longer names goes back to what it is of itself."""
        defaults = {**schema.DEFAULTS, schema.NAME: self.physical_resource_name()}
        return {
            name: value
            for name, value in defaults.items()
            if before.get(name) is not None and after[name] is None
        }

    def _add_member(self, project: str) -> None:
        try:
            self._relations.registry.ask("POST", f"{self._path}/members", json={"member": project})
        except StateConflict:
            return  # it is one already

    def _take_member_away(self, project: str) -> None:
        try:
            self._relations.registry.ask("DELETE", f"{self._path}/members/{project}")
        except NotThere:
            return

    def _relate(self, before: WantedRelation | None, after: WantedRelation | None) -> None:
        """Attach what is wanted now, and detach what was wanted before."""
        if before == after:
            return
        with telling_who_may_record():
            if after:
                self._attach(after)
            if before and not (after and _key(before) == _key(after)):
                self._detach(before)

    def _attach(self, wanted: WantedRelation) -> None:
        client = RelationsClient(self._recording_adapter)
        what = (wanted.instance, str(self.resource_id), wanted.kind, wanted.label)
        try:
            client.attach(*what)
        except StateConflict as error:
            if error.code != RelationConflict.code:
                raise
            self._detach(wanted)
            client.attach(*what)

    def _detach(self, relation: WantedRelation) -> None:
        client = RelationsClient(self._recording_adapter)
        try:
            client.detach(relation.instance, str(self.resource_id), relation.kind)
        except NotThere:
            return

    def _image(self) -> Image:
        return self._relations.registry.ask("GET", self._path).read(Image)

    def _image_if_there(self) -> Image | None:
        try:
            return self._image()
        except NotThere:
            return None

    @property
    def _path(self) -> str:
        return f"{routes.IMAGES}/{self.resource_id}"

    @property
    def _is_adopted(self) -> bool:
        return bool(self.properties[schema.IMAGE])

    @cached_property
    def _relations(self) -> RelationsClient:
        return RelationsClient(self.client())

    @cached_property
    def _recording_adapter(self) -> Any:
        return recording.recording_adapter(image_part(self.client()))


def _has_come(started: StartedImport, location: str) -> bool:
    """Whether the import has succeeded; Glance's reason for a failure does not say from where."""
    try:
        return started.look()[1]
    except ImportFailed as error:
        raise ImportFailed(
            f"{location} could not be imported; is it there, and may the image service reach it? "
            f"{error}",
            image_id=error.image_id,
            image_status=error.image_status,
        ) from error


def _named(values: Values) -> dict[str, Any]:
    """What the template says of the image itself, user-defined properties among it."""
    plain = {name: values[name] for name in schema.PLAIN if values[name] is not None}
    return plain | (values[schema.PROPERTIES] or {})


def _unwanted(before: Values, after: Values) -> set[str]:
    """The properties that the template named and names no more."""
    return _optional(before) - _optional(after)


def _optional(values: Values) -> set[str]:
    named = {name for name in schema.OPTIONAL if values.get(name) is not None}
    return named | set(values.get(schema.PROPERTIES) or {})


def _key(relation: WantedRelation) -> tuple[Any, str]:
    return relation.instance, relation.kind
