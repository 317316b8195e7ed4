"""A driver of Cinder whose volumes and volume snapshots are sparse files."""

import shutil
from pathlib import Path
from typing import Any

from cinder import interface
from cinder.volume import driver, volume_utils
from oslo_config.cfg import CONF

GIBIBYTE = 2**30


@interface.volumedriver
class FileDriver(driver.VolumeDriver):  # type: ignore[misc]
    VERSION = "1"
    CI_WIKI_NAME = "none"

    def check_for_setup_error(self) -> None:
        pass

    def _update_volume_stats(self) -> None:
        self._stats = {
            "volume_backend_name": "files",
            "vendor_name": "related-images",
            "driver_version": self.VERSION,
            "storage_protocol": "file",
            "total_capacity_gb": 1000,
            "free_capacity_gb": 1000,
            "multiattach": True,
        }

    def create_volume(self, volume: Any) -> None:
        self._resize(volume, volume.size)

    def delete_volume(self, volume: Any) -> None:
        self._path(volume).unlink(missing_ok=True)

    def extend_volume(self, volume: Any, new_size: int) -> None:
        self._resize(volume, new_size)

    def create_snapshot(self, snapshot: Any) -> None:
        shutil.copyfile(self._path(snapshot.volume), self._path(snapshot))

    def delete_snapshot(self, snapshot: Any) -> None:
        self._path(snapshot).unlink(missing_ok=True)

    def create_volume_from_snapshot(self, volume: Any, snapshot: Any) -> None:
        self._copy(snapshot, volume)

    def create_cloned_volume(self, volume: Any, src_vref: Any) -> None:
        self._copy(src_vref, volume)

    def clone_image(
        self, context: Any, volume: Any, image_location: Any, image_meta: Any, image_service: Any
    ) -> tuple[dict[str, Any], bool]:
        self._download(context, volume, image_service, image_meta["id"])
        return {}, True

    def copy_image_to_volume(
        self,
        context: Any,
        volume: Any,
        image_service: Any,
        image_id: str,
        disable_sparse: bool = False,
    ) -> None:
        self._download(context, volume, image_service, image_id)

    def copy_volume_to_image(
        self, context: Any, volume: Any, image_service: Any, image_meta: Any
    ) -> None:
        volume_utils.upload_volume(
            context, image_service, image_meta, str(self._path(volume)), volume
        )

    def ensure_export(self, context: Any, volume: Any) -> None:
        pass

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        pass

    def remove_export(self, context: Any, volume: Any) -> None:
        pass

    def initialize_connection(self, volume: Any, connector: Any) -> dict[str, Any]:
        return {"driver_volume_type": "local", "data": {"device_path": str(self._path(volume))}}

    def terminate_connection(self, volume: Any, connector: Any, **_: Any) -> None:
        pass

    def _path(self, thing: Any) -> Path:
        path: Path = Path(CONF.state_path) / "volumes" / thing.id
        return path

    def _resize(self, volume: Any, gibibytes: int) -> None:
        with self._path(volume).open("ab") as file:
            file.truncate(gibibytes * GIBIBYTE)

    def _copy(self, source: Any, volume: Any) -> None:
        # sparse files stay sparse
        self._execute("cp", "--sparse=always", str(self._path(source)), str(self._path(volume)))
        self._resize(volume, volume.size)

    def _download(self, context: Any, volume: Any, image_service: Any, image_id: str) -> None:
        with self._path(volume).open("wb") as file:
            image_service.download(context, image_id, file)
        self._resize(volume, volume.size)
