"""The end of an instance that may not be known yet, since what is said of it comes in any order."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, select

from related_images.db import dialects, image_owners
from related_images.db.relations import end_instance, reach
from related_images.db.row_ids import installation_ref, is_instance, project_ref
from related_images.db.tables import installation, instance, project

# an insert that finds its row there uses up one of the few numbers of these tables
_known: Final = select(
    installation_ref(bindparam("installation_uuid")), project_ref(bindparam("project_id"))
)


def end_unseen_instance(
    connection: Connection, installation_uuid: str, instance_id: str, project_id: str, at: datetime
) -> None:
    """Note that the instance of a project is gone since ``at``, whether it is known or not.

    The first time that was noted stands.
    """
    was_known = end_instance(connection, installation_uuid, instance_id, at)
    named = {"installation_uuid": installation_uuid, "project_id": project_id}
    home, owner = connection.execute(_known, named).one()
    owner = owner or reach(connection, project, {"project_id": project_id})[0]
    if was_known:
        _report(connection, installation_uuid, instance_id, owner)
        return
    home = home or reach(connection, installation, {"uuid": installation_uuid})[0]
    key = {"instance_id": instance_id, "installation_ref": home}
    _, made = reach(connection, instance, key, project_ref=owner, ended_at=at)
    if not made:
        raise dialects.Overtaken("the instance was recorded by another at the same moment")


def _report(connection: Connection, installation_uuid: str, instance_id: str, owner: int) -> None:
    """Note whose the instance is, which :func:`end_instance` holds."""
    asked = select(instance.c.id, instance.c.project_ref)
    found = connection.execute(asked.where(*is_instance(installation_uuid, instance_id))).one()
    if found.project_ref != owner:
        image_owners.report(connection, found.id, owner)
