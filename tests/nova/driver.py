"""A fake compute driver that uploads snapshots as the libvirt driver does."""

from io import BytesIO
from typing import Any

from nova.compute import task_states
from nova.image import glance
from nova.virt import fake


class UploadingDriver(fake.FakeDriverWithoutFakeNodes):  # type: ignore[misc]
    def snapshot(self, context: Any, instance: Any, image_id: str, update_task_state: Any) -> None:
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        update_task_state(
            task_state=task_states.IMAGE_UPLOADING,
            expected_state=task_states.IMAGE_PENDING_UPLOAD,
        )
        formats = {"disk_format": "raw", "container_format": "bare"}
        glance.API().update(context, image_id, formats, BytesIO(b"a disk"))
