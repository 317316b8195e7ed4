"""``openstack image relation``: list, create and delete relations of images and resources."""

import argparse
from collections.abc import Iterator
from typing import Any, Final

from related_images import model, validation
from related_images.client import InstanceRef, Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.base_commands import (
    Column,
    ListWithNames,
    MultiObjectCommand,
    Table,
    TableCommand,
    table,
)
from related_images.osc.names import Names

COLUMNS: Final[tuple[Column, ...]] = (
    ("Image ID", lambda it: it.row.image_id),
    ("Image Name", lambda it: it.image_name),
    ("Kind", lambda it: it.row.kind),
    ("Label", lambda it: it.row.label),
    ("Resource Type", lambda it: it.row.resource_type),
    ("Resource ID", lambda it: it.row.instance_id),
    ("Server Name", lambda it: it.server_name),
    ("Installation UUID", lambda it: it.row.installation_uuid),
    ("Created At", lambda it: validation.format_seconds(it.row.created_at)),
    ("Deleted At", lambda it: validation.format_seconds(it.row.image_deleted_at)),
)
EXPIRES: Final[tuple[Column, ...]] = (
    ("Expires At", lambda it: validation.format_seconds(it.row.expires_at)),
)
LONG_COLUMNS: Final[tuple[Column, ...]] = (
    *EXPIRES,
    ("Source", lambda it: it.row.source),
    ("Project ID", lambda it: it.row.project_id),
)


class ListRelation(ListWithNames):
    """List relations of images with servers, volumes and other resources, newest first.

    A relation remains after its image is deleted. Deleted At is the time of this deletion. Expires
    At (--long or --kind use) is the end of a lease.
    """

    columns = COLUMNS
    long_columns = LONG_COLUMNS

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "image",
            metavar="<image>",
            nargs="?",
            help="List only relations of this image (name or ID)",
        )
        arguments.add_installation(
            parser,
            "List only relations of this installation (UUID of a deployment of Nova or Cinder)",
        )
        arguments.add_resource_type(parser, "List only relations of resources of this type")
        parser.add_argument(
            "--server",
            metavar="<server>",
            help=f"List only relations of this server ({arguments.SERVER}). With another "
            "--resource-type: list only relations of the resource with this ID",
        )
        arguments.add_kind(parser, "List only relations of this kind")
        arguments.add_label(parser, "List only relations with this label, such as daily")
        parser.add_argument(
            "--source",
            choices=model.SOURCES,
            help="List only relations with this source (service: reported by a service such as "
            "Nova; notification: recorded by related-images listen; backfill: recorded by "
            "related-images backfill or reconcile)",
        )
        arguments.add_project(parser, "relations")
        arguments.add_times(parser)
        parser.add_argument(
            "--in-use",
            action="store_true",
            default=None,
            help="List only boot relations of live servers and volumes, and live leases",
        )

    def shown_columns(self, args: argparse.Namespace) -> tuple[Column, ...]:
        is_added = args.kind == model.USE and not args.long
        return super().shown_columns(args) + (EXPIRES if is_added else ())

    def find(self, args: argparse.Namespace) -> Iterator[Relation]:
        client = self.clients.relations
        filters = self._filters(args)
        if args.image is None:
            return client.relations(**filters, limit=args.limit, page_size=PAGE)
        image_id = resolve.image(client, args.image)
        if filters:
            return client.relations(image_id=image_id, **filters)
        return client.relations_of_image(image_id)

    def _resource(self, args: argparse.Namespace) -> dict[str, str | None]:
        """Return the filters for the type and the ID."""
        resource_type, text = args.resource_type, args.server
        if text is not None and resource_type in (None, model.SERVER):
            resource_type, text = model.SERVER, resolve.server_id(self.app.client_manager, text)
        return {"resource_type": resource_type, "instance_id": text}

    def _filters(self, args: argparse.Namespace) -> dict[str, Any]:
        filters = {
            "installation_uuid": args.installation,
            **self._resource(args),
            "kind": args.kind,
            "label": args.label,
            "source": args.source,
            "project_id": resolve.project(self.app.client_manager, args.project),
            "created_after": args.created_after,
            "created_before": args.created_before,
            "in_use": args.in_use,
        }
        return {name: value for name, value in filters.items() if value is not None}


class RelationCommand(MultiObjectCommand):
    """A command on the relations of one resource with several images."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_resource_type(parser, "Type of the resource", model.SERVER)
        arguments.add_installation(
            parser,
            "Installation of the resource (UUID of a deployment of Nova or Cinder); needed unless "
            "exactly one installation has a resource with this type and ID",
        )
        parser.add_argument(
            "resource",
            metavar="<resource>",
            help=f"Server, volume or other resource of the relations ({arguments.RESOURCE})",
        )
        arguments.add_images(parser, "of the relations")
        arguments.add_kind(parser, "Kind of the relations", required=True)

    def resource(self, args: argparse.Namespace) -> InstanceRef:
        """Return the resource that the arguments name."""
        return resolve.resource(
            self.app.client_manager, args.installation, args.resource, args.resource_type
        )


class CreateRelation(RelationCommand, TableCommand):
    """Record that images belong to a server or a volume, or that a resource uses them.

    A second run with the same arguments changes nothing. With the kind use, a later --expires
    extends the lease. Requires a role that may record relations (by default service).
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        arguments.add_label(
            parser,
            "Label of the relations. For a backup, the label is the backup type, such as daily",
        )
        parser.add_argument(
            "--resource-project",
            metavar="<project>",
            help="Project that owns the resource (name or ID); this project sees the boot and use "
            "relations of the resource. Required for the kind use",
        )
        arguments.add_expires(parser)

    def take_action(self, args: argparse.Namespace) -> Table:
        client = self.clients.relations
        resource = self.resource(args)
        project_id = resolve.project(self.app.client_manager, args.resource_project)

        def create(image: str) -> Relation:
            image_id = resolve.image(client, image)
            return client.attach(
                *(resource, image_id, args.kind, args.label, project_id), expires_at=args.expires
            )

        created = self.for_each(args.images, create)
        names = Names(self.app.client_manager, self.log)
        return table(COLUMNS + LONG_COLUMNS, names.add_to(created))


class DeleteRelation(RelationCommand):
    """Remove the relations of images with a server or a volume, or end leases.

    The images are not deleted. Requires a role that may record relations (by default service), or
    an administrator's role.
    """

    def take_action(self, args: argparse.Namespace) -> None:
        client = self.clients.relations
        resource = self.resource(args)

        def delete(image: str) -> None:
            client.detach(resource, resolve.image(client, image), args.kind)

        self.for_each(args.images, delete)
