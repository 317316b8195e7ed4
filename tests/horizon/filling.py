"""Fill the databases of another Glance with the backups of 2,000 servers of alice's project."""

from typing import Any, Final

from sqlalchemy import create_engine, text

from benchmarks import filling
from tests.cloud.cloud import BIN, Cloud

SERVERS: Final = 2_000
BACKUPS: Final = 14
"""The number of backups of each server."""
GLANCE, RELATED = ("large_glance", "large_related_images")
BASE: Final = filling.image_id(1)
"""The image from which all servers were started."""

_RELATIONS: Final = (
    "UPDATE related_relation SET kind = 2, label = 'daily', project_ref = 1",
    "UPDATE related_instance SET project_ref = 1",
    "UPDATE related_project SET project_id = :project WHERE id = 1",
    f"UPDATE related_image SET created_at = {filling.BEGIN} + id * 1000000",  # noqa: S608
    "INSERT INTO related_relation"  # noqa: S608
    " (id, instance_ref, image_ref, kind, source, project_ref, created_at, claimed)"
    f" SELECT 1000000 + id, id, 1, 3, 1, 1, {filling.BEGIN}, 0 FROM related_instance",
)
_IMAGES: Final = ("UPDATE images SET status = 'active', size = 1000000, owner = :project",)


def fill_databases(cloud: Cloud) -> dict[str, Any]:
    """Fill the databases, and return the options of the Glance that uses them."""
    plan = cloud.plan
    project = cloud.connection("alice").current_project_id
    engine = create_engine(plan.database)
    with engine.begin() as connection:
        for name in (GLANCE, RELATED):
            connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    options = {"connection": plan.database_of(RELATED)}
    told: dict[str, Any] = {"options": options, "database": GLANCE}
    home = plan.home("large-tables")
    home.mkdir()
    plan.write_glance(home, **told)
    conf = str(home / "glance-api.conf")
    cloud.processes.run(
        "large-tables", str(BIN / "glance-manage"), "--config-file", conf, "db_sync"
    )
    size = filling.Cloud(SERVERS * BACKUPS, BACKUPS)
    filling.fill(plan.database_of(RELATED), size)
    filling.fill_glance(plan.database_of(GLANCE), size, 2)
    for name, statements in ((RELATED, _RELATIONS), (GLANCE, _IMAGES)):
        with filling.connected(plan.database_of(name)) as connection:
            for statement in statements:
                given = {"project": project} if ":project" in statement else {}
                connection.execute(text(statement), given)
            if name == RELATED:
                filling.fill_latest(connection)
            filling.settle(connection)
    return told


def name_server(cloud: Cloud, server_id: str) -> None:
    """Give the backups of the first server to a server that Nova knows."""
    with filling.connected(cloud.plan.database_of(RELATED)) as connection:
        statement = "UPDATE related_instance SET instance_id = :server WHERE id = 1"
        connection.execute(text(statement), {"server": server_id})
        connection.commit()
