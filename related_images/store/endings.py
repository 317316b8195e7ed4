"""The end of an instance that may not be known yet, since what is said of it comes in any order."""

from datetime import datetime

from sqlalchemy import Connection

from related_images.store.relations import end_instance, reach
from related_images.store.tables import installation, instance, project


def end_unseen_instance(
    connection: Connection, installation_uuid: str, instance_id: str, project_id: str, at: datetime
) -> None:
    """Note that the instance is gone since ``at``, whether it is known or not.

    The first time that was noted stands.
    """
    if end_instance(connection, installation_uuid, instance_id, at):
        return
    home, _ = reach(connection, installation, {"uuid": installation_uuid})
    owner, _ = reach(connection, project, {"project_id": project_id})
    key = {"instance_id": instance_id, "installation_ref": home}
    reach(connection, instance, key, project_ref=owner)
    end_instance(connection, installation_uuid, instance_id, at)
