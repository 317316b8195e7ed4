"""``OS::RelatedImages::Image``: an image with its metadata and its instance."""

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
from related_images.client.urls import hide_credentials, without_credentials
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
    faults,
    wanted_relation,
)
from related_images.protocol import paths

LOG = logging.getLogger(__name__)

Values = Mapping[str, Any]
IsDone = Callable[[], bool]

PATCH_TYPE: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
ATTEMPT: Final = "attempt"
"""The key of the resource's data that holds what an update that failed may have done."""


class ImageLost(ClientError):
    """The image went away, or to a status from which it does not come back."""

    code = "heat.image-lost"
    title = "The image did not become active"


class ImageProtected(ClientError):
    """The image of a stack that is deleted may not be deleted."""

    code = "heat.image-protected"
    title = "The image is protected"


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
            for name in (names.IMAGE, names.KERNEL_ID, names.RAMDISK_ID)
        ]

    def validate(self) -> None:
        """Find what is wrong before anything is made.

        :raises StackValidationFailed: with everything that is wrong
        """
        super().validate()
        _check(self.properties, self.properties.data)

    def handle_create(self) -> IsDone:
        values = dict(self.properties)
        _check(values, values)
        if values[names.LOCATION]:
            return self._import(values)
        if values[names.IMAGE]:
            return self._adopt(values)
        return self._snapshot(values)

    def check_create_complete(self, is_done: IsDone) -> bool:
        try:
            return is_done()
        except GlanceError as error:
            if not error.may_pass:
                raise
            LOG.info("asking again for %s: %s", self.name, error)
            return False  # Heat comes again, until the time of the stack is over

    def handle_update(self, json_snippet: Any, tmpl_diff: Any, prop_diff: Values) -> None:
        before = dict(self.properties)
        after = {**before, **prop_diff}
        _check(after, after)
        self._relating.bring_in_line(wanted_relation(after))
        self._bring_in_line(self._image(), before, after)

    def needs_replace_with_prop_diff(
        self, changed_properties_set: set[str], after_props: Values, before_props: Values
    ) -> bool:
        """A snapshot of another server is another image."""
        elsewhere = before_props[names.LOCATION] or before_props[names.IMAGE]
        return names.SERVER in changed_properties_set and not elsewhere

    def needs_replace_failed(self) -> bool:
        """A change that failed is tried again on the image that is there, if it has its data."""
        if self.resource_id is None:
            return True
        image = self._image_if_there()
        return image is None or (image.status != "active" and not self._is_adopted)

    def handle_adopt(self, resource_data: Any = None) -> None:
        """Take over an image from a stack that was abandoned, by what the user says of it.

        What the user says that the stack reported is not believed: it could be others' reports.
        """
        super().handle_adopt(resource_data)
        for key in (REPORTS, ATTEMPT):
            self.data_delete(key)

    def handle_check(self) -> None:
        if self.resource_id is None:
            raise exception.Error("there is no image: it was never made; update the stack")
        values, image = dict(self.properties), self._image()
        if image.status != "active" and not self._is_adopted:
            raise exception.Error(f"the image {image.id} is {image.status}, and was active")
        faults = list(self._faults(values, image))
        if faults:
            raise exception.Error(
                f"the image {image.id} is not as the template says any more: {'; '.join(faults)}; "
                "an update of the stack puts it right"
            )

    def _faults(self, values: Values, image: Image) -> Iterator[str]:
        operations = image_patch.patch(image, self._wanted(image, values, values, Attempt()), ())
        if operations:
            yield ", ".join(operation["path"] for operation in operations)
        present = self._members(image) if values[names.MEMBERS] else ()
        missing = image_patch.added(present, values[names.MEMBERS] or [])
        if missing:
            yield f"it is not shared with {', '.join(missing)}"
        fault = self._relating.fault(wanted_relation(values))
        if fault:
            yield fault

    def get_live_state(self, resource_properties: Any) -> dict[str, Any]:
        """What the template names of the image, as it is now; what others added is not its own."""
        image = self._image_if_there()
        if image is None:
            raise exception.EntityNotFound(entity="Image", name=self.resource_id)
        named = resource_properties[names.PROPERTIES] or {}
        plain = [name for name in names.PLAIN if resource_properties[name] is not None]
        members = resource_properties[names.MEMBERS] or []
        present = self._members(image) if members else ()
        return {
            **{name: image.get(name) for name in plain},
            names.PROPERTIES: {name: image[name] for name in named if name in image},
            names.TAGS: [tag for tag in resource_properties[names.TAGS] if tag in image.tags],
            names.MEMBERS: [project for project in members if project in present],
            **self._live_relation(wanted_relation(resource_properties)),
        }

    def _live_relation(self, wanted: WantedRelation | None) -> dict[str, Any]:
        """What differs: no kind where there is no relation, or its label."""
        if wanted is None:
            return {}
        present = self._relating.present(wanted)
        if present is None:
            return {names.KIND: ""}
        return {} if wanted.label is None else {names.LABEL: present.label}

    def _needs_update(self, *given: Any, **more: Any) -> bool:
        # what a check found wrong, or an update that failed left behind, is put right though the
        # template says what it said before
        is_wrong = self.status == self.FAILED
        return bool(super()._needs_update(*given, **more)) or is_wrong

    def handle_delete(self) -> None:
        if self.resource_id is None:
            return
        if self._is_adopted:
            self._relating.bring_in_line(None)
            return
        try:
            self._relations.glance.ask("DELETE", self._path)
        except NotFound:
            return
        except Forbidden as error:
            image = self._image_if_there()
            if image is None or not image.protected:
                raise
            raise ImageProtected(
                f"the image {image.id} is protected, so it stays and so does the stack; have the "
                "template say protected: false, or unprotect the image otherwise, then delete the "
                "stack again"
            ) from error

    def _resolve_attribute(self, name: str) -> Any:
        if self.resource_id is None:
            return None
        if name == names.RELATIONS:
            return self._shown_relations()
        return self._image().get(name)

    def _show_resource(self) -> dict[str, Any]:
        return dict(self._image())

    def _shown_relations(self) -> list[Any]:
        pages = self._relations.glance.pages(f"{self._path}/relations", ())
        return [shown for page in pages for shown in page.read(lambda body: body["relations"])]

    def _import(self, values: Values) -> IsDone:
        location = values[names.LOCATION]
        importer = Importer(self._relations.glance, location, Stores())
        importer.check_offered(None)
        # known before it is made, so that it is found and deleted whatever becomes of the answer
        self.resource_id_set(str(uuid.uuid4()))
        image = self._create(values)
        self._bring_in_line(image, {}, values)
        with _hiding(location):
            started = importer.start(str(self.resource_id))
        return lambda: _has_come(started, location)

    def _create(self, values: Values) -> Image:
        body = {names.NAME: self.physical_resource_name(), **_named(values)}
        body |= {names.ID: self.resource_id, names.TAGS: values[names.TAGS] or []}
        relation = wanted_relation(values)
        if relation and relation.kind in model.MADE_FROM:
            return self._relating.create(relation, body)
        image = self._relations.glance.ask("POST", paths.IMAGES, json=body).read(Image)
        self._relating.bring_in_line(relation)
        return image

    def _adopt(self, values: Values) -> IsDone:
        self.resource_id_set(values[names.IMAGE])
        self._relating.bring_in_line(wanted_relation(values))
        self._bring_in_line(self._image(), {}, values)
        return lambda: True

    def _snapshot(self, values: Values) -> IsDone:
        name = values[names.NAME] or self.physical_resource_name()
        made = self.client("nova").servers.create_image(values[names.SERVER], name)
        self.resource_id_set(str(made))
        try:
            self._relating.bring_in_line(wanted_relation(values))
        except NotFound as error:
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
            f"the snapshot {self.resource_id} of server {values[names.SERVER]} failed: Nova took "
            "the image away again; its log says why"
        )

    def _bring_in_line(self, image: Image, before: Values, after: Values) -> None:
        """Change what the template changed, or an update that failed: members, and the rest."""
        failed = self._attempt()
        old = {*(before.get(names.MEMBERS) or ()), *failed.members}
        new = after[names.MEMBERS] or []
        present = self._members(image) if old or new else ()
        if before:
            self.data_set(ATTEMPT, failed.then(_attempt(image, present, before, after)).written())
        for project in sorted(old.intersection(present).difference(new)):
            self._take_member_away(project)
        operations = image_patch.patch(
            image,
            self._wanted(image, before, after, failed),
            (_optional(before) | failed.unwanted()) - _named(after).keys(),
        )
        if operations:
            self._relations.glance.ask("PATCH", self._path, json=operations, headers=PATCH_TYPE)
        for project in image_patch.added(present, new):
            self._add_member(project)
        self.data_delete(ATTEMPT)

    def _wanted(
        self, image: Image, before: Values, after: Values, failed: Attempt
    ) -> dict[str, Any]:
        wanted = self._restored(before, after) | failed.restored() | _named(after)
        old = [*(before.get(names.TAGS) or ()), *failed.tags]
        return wanted | {names.TAGS: image_patch.tags(image.tags, old, after[names.TAGS] or [])}

    def _restored(self, before: Values, after: Values) -> dict[str, Any]:
        """What the template no longer names goes back to what it is of itself."""
        defaults = {**names.DEFAULTS, names.NAME: self.physical_resource_name()}
        return {
            name: value
            for name, value in defaults.items()
            if before.get(name) is not None and after[name] is None
        }

    def _attempt(self) -> Attempt:
        text = self.data().get(ATTEMPT)
        return Attempt() if text is None else Attempt.read(text)

    def _members(self, image: Image) -> Collection[str]:
        """Whom the image is shared with; Glance tells it of shared images alone."""
        if image.visibility != "shared":
            return ()
        answer = self._relations.glance.ask("GET", f"{self._path}/members")
        return answer.read(lambda body: [member["member_id"] for member in body["members"]])

    def _add_member(self, project: str) -> None:
        try:
            self._relations.glance.ask("POST", f"{self._path}/members", json={"member": project})
        except Conflict:
            return  # it is one already

    def _take_member_away(self, project: str) -> None:
        try:
            self._relations.glance.ask("DELETE", f"{self._path}/members/{project}")
        except NotFound:
            return

    def _image(self) -> Image:
        return self._relations.glance.ask("GET", self._path).read(Image)

    def _image_if_there(self) -> Image | None:
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
    def _is_adopted(self) -> bool:
        return bool(self.properties[names.IMAGE])

    @cached_property
    def _relations(self) -> RelationsClient:
        return RelationsClient(self.client())

    @cached_property
    def _relating(self) -> ImageRelation:
        return ImageRelation(self, image_part(self.client()), self._project_of_instance)

    def _project_of_instance(self, wanted: WantedRelation, is_there: bool) -> str | None:
        return server_check.project_of_instance(
            self.client("nova"),
            wanted,
            self._image() if is_there else None,
            self.context.project_id,
        )


@contextmanager
def _hiding(location: str) -> Iterator[None]:
    """Leave credentials in the location out of errors, which end up in the stack's reason."""
    try:
        yield
    except ClientError as error:
        error.args = (hide_credentials(str(error), location),)
        raise


def _has_come(started: StartedImport, location: str) -> bool:
    """Whether the import has succeeded; Glance's reason for a failure does not say from where."""
    try:
        with _hiding(location):
            return started.look()[1]
    except ImportFailed as error:
        raise ImportFailed(
            f"{without_credentials(location)} could not be imported: {error}; an update of the "
            "stack makes the image anew",
            image_id=error.image_id,
            image_status=error.image_status,
        ) from error


def _named(values: Values) -> dict[str, Any]:
    """What the template says of the image itself, user-defined properties among it."""
    plain = {name: values[name] for name in names.PLAIN if values[name] is not None}
    return plain | (values[names.PROPERTIES] or {})


def _optional(values: Values) -> set[str]:
    """The properties that the template names and an image may lack."""
    named = {name for name in names.OPTIONAL if values.get(name) is not None}
    return named | set(values.get(names.PROPERTIES) or {})


def _attempt(image: Image, members: Collection[str], before: Values, after: Values) -> Attempt:
    """What an update to the template ``after`` puts on an image and the one before did not name."""
    mine = before.get(names.PROPERTIES) or {}
    fresh = [
        name
        for name in _named(after)
        if name not in mine and before.get(name) is None and _may_go_back(name, image)
    ]
    return Attempt(
        was={name: image.get(name) for name in fresh},
        tags=tuple(image_patch.added(image.tags, after[names.TAGS] or [])),
        members=tuple(image_patch.added(members, after[names.MEMBERS] or [])),
    )


def _may_go_back(name: str, image: Image) -> bool:
    """Whether Glance lets an attribute be again what it is now."""
    if name in (names.DISK_FORMAT, names.CONTAINER_FORMAT):
        return False  # not once there is data
    return image.get(name) is not None or name not in (names.NAME, *names.DEFAULTS)


def _check(values: Values, raw: Values) -> None:
    """Refuse a template that cannot become an image.

    :raises StackValidationFailed: with everything that is wrong
    """
    found = faults(Template(values, raw, is_known))
    if found:
        raise exception.StackValidationFailed(message="; ".join(found))
