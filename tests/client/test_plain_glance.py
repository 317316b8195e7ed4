"""With a real Glance without the filter, nothing is created, listed or deleted."""

import pytest

from related_images.client import InstanceAwareImageService, NotInstanceAware, RelationsClient
from tests.client.clients import INSTALLATION, SERVICE, Maker
from tests.servers import ServedGlance


def test_a_missing_filter_is_an_error_before_any_change(
    make_client: Maker, plain_glance: ServedGlance
) -> None:
    made = plain_glance.request("POST", "/v2/images", SERVICE, body={"name": "mine"})
    assert made.status == 201
    images = InstanceAwareImageService(make_client(plain_glance.url, SERVICE), INSTALLATION)
    for call in (
        lambda: images.create("inst-1", kind="snapshot", name="new"),
        lambda: images.import_image(
            b"data",
            instance_id="inst-1",
            kind="snapshot",
            disk_format="raw",
            container_format="bare",
        ),
        lambda: images.list("inst-1"),
        lambda: images.list(in_use=False),
        lambda: images.backups("inst-1"),
        lambda: images.delete(made.json["id"]),
        lambda: images.delete(made.json["id"], instance_id="inst-1"),
        lambda: images.attach("inst-1", made.json["id"], kind="backup"),
        lambda: images.instance_ended("inst-1"),
        lambda: images.relations("inst-1"),
        lambda: images.ancestry(made.json["id"]),
        lambda: RelationsClient(make_client(plain_glance.url, SERVICE)).info(),
    ):
        with pytest.raises(NotInstanceAware, match="install related-images there"):
            call()
    there = plain_glance.request("GET", "/v2/images", SERVICE).json["images"]
    assert [image["name"] for image in there if image["id"] == made.json["id"]] == ["mine"]
    assert "new" not in {image["name"] for image in there}
