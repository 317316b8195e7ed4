"""``openstack instance image`` and ``instance backup``: the images made from an instance."""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from related_images import model
from related_images.client import Image, Relation
from related_images.client.glance import PAGE
from related_images.osc import arguments, resolve
from related_images.osc.commands import Column, RelatedLister


@dataclass(frozen=True)
class Row:
    """An image, and the relations by which it belongs to the instance."""

    image: Image
    relations: list[Relation]


KIND: Final[Column] = ("Kind", lambda row: _words(relation.kind for relation in row.relations))
LABEL: Final[Column] = ("Label", lambda row: _words(relation.label for relation in row.relations))


def _of_image(heading: str, name: str) -> Column:
    return heading, lambda row: row.image.get(name)


def _words(texts: Iterator[str | None]) -> str | None:
    return ", ".join(sorted({text for text in texts if text})) or None


_MORE: Final[tuple[Column, ...]] = (
    _of_image("Size", "size"),
    _of_image("Disk Format", "disk_format"),
    _of_image("Visibility", "visibility"),
    _of_image("Protected", "protected"),
    _of_image("Project ID", "owner"),
)


class _ImageLister(RelatedLister):
    more = _MORE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_instance(parser)
        arguments.add_label(parser)
        arguments.add_project(parser, "images of")
        arguments.add_sort(parser)

    def rows(
        self, given: argparse.Namespace, kind: str | None, status: str | None
    ) -> Iterator[Row]:
        """The images of the instance that is asked for, of that kind and in that status."""
        instance = resolve.instance(self.clients.relations, given.installation, given.instance_id)
        service = self.clients.images(instance.installation_uuid)
        filters = {
            "status": status,
            "owner": resolve.project(self.app.client_manager, given.project),
            "sort": given.sort,
        }
        images = service.list(
            instance.instance_id,
            kind=kind,
            label=given.label,
            limit=given.limit,
            page_size=PAGE,
            **{name: text for name, text in filters.items() if text is not None},
        )
        relations: dict[str, list[Relation]] = defaultdict(list)
        for relation in service.relations(instance.instance_id, kind=kind, page_size=PAGE):
            relations[relation.image_id].append(relation)
        return (Row(image, relations[image.id]) for image in images)


class ListInstanceImage(_ImageLister):
    """List the images made from an instance: its snapshots and backups."""

    columns = (
        _of_image("ID", "id"),
        _of_image("Name", "name"),
        KIND,
        LABEL,
        _of_image("Status", "status"),
        _of_image("Created At", "created_at"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        arguments.add_kind(parser)
        parser.add_argument(
            "--status", metavar="<status>", help="images in this status, such as active, only"
        )

    def found(self, given: argparse.Namespace) -> Iterator[Row]:
        return self.rows(given, given.kind, given.status)


class ListInstanceBackup(_ImageLister):
    """List the backups of an instance that can be restored: those whose image is active."""

    columns = (
        _of_image("ID", "id"),
        _of_image("Name", "name"),
        LABEL,
        _of_image("Size", "size"),
        _of_image("Created At", "created_at"),
    )
    more = _MORE[1:]

    def found(self, given: argparse.Namespace) -> Iterator[Row]:
        return self.rows(given, model.BACKUP, "active")
