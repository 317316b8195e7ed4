"""Changes of images that tests need: their age, and the properties that the rules look at."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, select, text, update

from related_images.db import latest_images
from related_images.db.row_ids import image_ref
from related_images.db.tables import image, relation
from tests.osc.running import Instance


def age(instance: Instance, days: dict[str, float]) -> None:
    """Set the times of images and relations in the databases: no API can."""
    home = instance.glance.directory
    with (
        create_engine(f"sqlite:///{home}/glance.db").begin() as glance,
        create_engine(f"sqlite:///{home}/related-images.db").begin() as ours,
    ):
        for image_id, number in days.items():
            made = datetime.now(UTC) - timedelta(days=number)
            naive = made.replace(tzinfo=None).isoformat(" ")
            changed = text("UPDATE images SET created_at=:at WHERE id=:id")
            assert glance.execute(changed, {"at": naive, "id": image_id}).rowcount == 1
            # Glance returns times of images in whole seconds
            learned = update(image).where(image.c.uuid == image_id)
            ours.execute(learned.values(created_at=made.replace(microsecond=0)))
            is_recorded = relation.c.image_ref == image_ref(image_id)
            recorded = update(relation).where(is_recorded)
            assert ours.execute(recorded.values(created_at=made)).rowcount == 1
            known = update(image).where(image.c.uuid == image_id)
            ours.execute(known.values(created_at=made.replace(microsecond=0)))
            refs = ours.execute(select(relation.c.instance_ref).where(is_recorded)).scalars()
            latest_images.refresh(ours, refs.all())


def set_true(instance: Instance, image_id: str, name: str) -> None:
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    body = f'[{{"op": "replace", "path": "/{name}", "value": true}}]'.encode()
    path = f"/v2/images/{image_id}"
    assert instance.glance.request("PATCH", path, instance.member, patch, body).status == 200
