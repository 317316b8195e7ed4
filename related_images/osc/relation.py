"""``openstack image relation``: which image belongs to which instance."""

import argparse
from collections.abc import Iterator
from typing import Any, Final

from related_images import model, validation
from related_images.client import Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import (
    Column,
    OnSeveral,
    RelatedLister,
    Table,
    TableCommand,
    shown_time,
    table,
)

COLUMNS: Final[tuple[Column, ...]] = (
    ("Image ID", lambda row: row.image_id),
    ("Kind", lambda row: row.kind),
    ("Label", lambda row: row.label),
    ("Instance ID", lambda row: row.instance.instance_id),
    ("Installation UUID", lambda row: row.instance.installation_uuid),
    ("Created At", lambda row: shown_time(row.created_at)),
    ("Deleted At", lambda row: shown_time(row.image_deleted_at)),
)
MORE: Final[tuple[Column, ...]] = (
    ("Source", lambda row: row.source),
    ("Project ID", lambda row: row.project_id),
)


class ListRelation(RelatedLister):
    """List which images belong to which instances, newest first.

    Deleted At is when the image was deleted; the relation stays.
    """

    columns = COLUMNS
    more = MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "image", metavar="<image>", nargs="?", help="relations of this image (name or ID) only"
        )
        arguments.add_installation(parser)
        parser.add_argument(
            "--instance",
            metavar="<instance-id>",
            type=validation.argument(validation.instance_id),
            help="relations of this instance only",
        )
        arguments.add_kind(parser)
        arguments.add_label(parser)
        parser.add_argument("--source", choices=model.SOURCES, help="relations of this source only")
        arguments.add_project(parser, "relations of")
        arguments.add_times(parser)
        parser.add_argument(
            "--in-use",
            action="store_true",
            default=None,
            help="only from which images live instances were started",
        )

    def found(self, given: argparse.Namespace) -> Iterator[Relation]:
        client = self.clients.relations
        filters = self._filters(given)
        if given.image is None:
            return client.relations(**filters, limit=given.limit, page_size=PAGE)
        image_id = resolve.image(client, given.image)
        if filters:
            return client.relations(image_id=image_id, **filters)
        return client.relations_of_image(image_id)

    def _filters(self, given: argparse.Namespace) -> dict[str, Any]:
        filters = {
            "installation_uuid": given.installation,
            "instance_id": given.instance,
            "kind": given.kind,
            "label": given.label,
            "source": given.source,
            "project_id": resolve.project(self.app.client_manager, given.project),
            "created_after": given.created_after,
            "created_before": given.created_before,
            "in_use": given.in_use,
        }
        return {name: value for name, value in filters.items() if value is not None}


class OnRelations(OnSeveral):
    """A command on the relations of an instance with several images."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_instance(parser)
        arguments.add_images(parser)
        arguments.add_kind(parser, required=True)


class CreateRelation(OnRelations, TableCommand):
    """Record that images belong to an instance; the same again changes nothing.

    Needs a recording role.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        arguments.add_label(parser)
        parser.add_argument(
            "--instance-project",
            metavar="<project>",
            help="the project (name or ID) of the instance, which sees a boot relation",
        )

    def take_action(self, given: argparse.Namespace) -> Table:
        client = self.clients.relations
        instance = resolve.instance(client, given.installation, given.instance_id)
        project_id = resolve.project(self.app.client_manager, given.instance_project)

        def create(image: str) -> Relation:
            image_id = resolve.image(client, image)
            return client.attach(instance, image_id, given.kind, given.label, project_id)

        return table(COLUMNS + MORE, self.each(given.images, create))


class DeleteRelation(OnRelations):
    """Take back that images belong to an instance; the images stay.

    Needs a recording role or an administrator's.
    """

    def take_action(self, given: argparse.Namespace) -> None:
        client = self.clients.relations
        instance = resolve.instance(client, given.installation, given.instance_id)

        def delete(image: str) -> None:
            client.detach(instance, resolve.image(client, image), given.kind)

        self.each(given.images, delete)
