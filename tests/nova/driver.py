"""A fake compute driver that uploads snapshots as the libvirt driver does, and can fail."""

from io import BytesIO
from typing import Any

from nova.compute import task_states
from nova.exception import ImageUnacceptable
from nova.image import glance
from nova.virt import fake

UNACCEPTABLE = "unacceptable"
"""The name of a server that the driver does not start."""


class UploadingDriver(fake.FakeDriverWithoutFakeNodes):  # type: ignore[misc]
    def spawn(self, context: Any, instance: Any, image_meta: Any, *args: Any, **more: Any) -> None:
        if instance.display_name == UNACCEPTABLE:
            raise ImageUnacceptable(image_id=image_meta.id, reason="its name")
        super().spawn(context, instance, image_meta, *args, **more)

    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        update_task_state(
            task_state=task_states.IMAGE_UPLOADING,
            expected_state=task_states.IMAGE_PENDING_UPLOAD,
        )
        formats = {"disk_format": "raw", "container_format": "bare"}
        glance.API().update(context, image_id, formats, BytesIO(b"a disk"))
