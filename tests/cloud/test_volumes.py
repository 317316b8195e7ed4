"""Servers on volumes, with the real Cinder."""

from tests.cloud.cloud import Cloud
from tests.cloud.user_actions import Hands


def test_a_snapshot_of_a_server_on_a_volume_is_recorded(cloud: Cloud) -> None:
    Hands(cloud).flavor("small-on-volume")
    user = cloud.connection("alice")
    formats = {"disk_format": "raw", "container_format": "bare"}
    image = user.image.create_image(name="root", data=b"a disk", wait=True, **formats)
    on_volume = ("--image", image.id, "--boot-from-volume", "1", "--flavor", "small-on-volume")
    words = ("server", "create", *on_volume, "--nic", "none", "--wait", "on-volume")
    server_id = cloud.shown("alice", *words)["id"]
    made = cloud.shown("alice", "server", "image", "create", "--name", "snap", "--wait", server_id)
    (relation,) = (
        cloud.connection("admin")
        .image.get(f"/v2/images/{made['id']}/relations")
        .json()["relations"]
    )
    assert relation["instance_id"] == server_id
