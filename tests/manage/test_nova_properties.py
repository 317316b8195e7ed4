"""What the properties of an image claim, and each thing on the image that contradicts them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from related_images.errors import BadInput
from related_images.manage import nova_properties
from related_images.manage.nova_properties import NovaClaim

IMAGE = "10000000-0000-4000-8000-000000000001"
ROOT = "10000000-0000-4000-8000-000000000002"
SERVER = "20000000-0000-4000-8000-000000000001"


def image(**more: Any) -> dict[str, Any]:
    """Return an image of Nova as Glance shows it, without the properties that are ``...``."""
    given = {
        "id": IMAGE,
        "owner": "demo",
        "size": 7,
        "created_at": "2026-01-31T12:00:00Z",
        "instance_uuid": SERVER,
        "image_type": "snapshot",
        "base_image_ref": ROOT,
        "user_id": "alice",
    } | more
    return {name: value for name, value in given.items() if value is not ...}


def read(**more: Any) -> NovaClaim:
    claim = nova_properties.read(image(**more))
    assert claim is not None
    return claim


def test_an_image_that_nova_made_is_credible() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read() == NovaClaim(IMAGE, "demo", SERVER, "snapshot", None, noon, None)


def test_an_image_without_properties_of_nova_claims_no_relation() -> None:
    assert nova_properties.read(image(instance_uuid=..., image_type=...)) is None


@pytest.mark.parametrize("mark", nova_properties.MARKS)
def test_an_image_with_only_one_property_is_rejected(mark: str) -> None:
    assert read(**{mark: ...}).contradiction is not None


@pytest.mark.parametrize(
    ("kind", "written", "label"),
    [
        ("backup", "daily", "daily"),
        ("backup", ..., None),
        ("backup", "", None),
        ("backup", "two\nlines", None),
        ("backup", "a" * 10_000, None),
        ("snapshot", "daily", None),
    ],
)
def test_only_backups_have_a_label_which_must_be_a_word(
    kind: str, written: Any, label: str | None
) -> None:
    claim = read(image_type=kind, backup_type=written)
    assert (claim.kind, claim.label, claim.contradiction) == (kind, label, None)


@pytest.mark.parametrize(
    ("more", "contradiction"),
    [
        ({"size": 0}, "the server is booted from a volume"),
        ({"block_device_mapping": '[{"volume_size": 1}]'}, "booted from a volume"),
        ({"bdm_v2": "true"}, "booted from a volume"),
        ({"base_image_ref": ...}, "Cinder uploaded the image"),
        ({"base_image_ref": ""}, "base_image_ref is"),
        ({"base_image_ref": "no-uuid"}, "base_image_ref is"),
        ({"instance_uuid": ...}, "instance_uuid is not a server ID"),
        ({"instance_uuid": "server-1"}, "instance_uuid is not a server ID"),
        ({"image_type": ...}, "image_type is"),
        ({"image_type": "boot"}, "image_type is"),
        ({"user_id": ...}, "user_id is missing"),
        ({"user_id": ""}, "user_id is missing"),
        ({"owner": None}, "the image has no owner"),
        ({"owner": "a\nb"}, "the owner of the image is not a project ID"),
    ],
)
def test_the_contradiction_is_named(more: dict[str, Any], contradiction: str) -> None:
    found = read(**more).contradiction
    assert found is not None
    assert contradiction in found


@pytest.mark.parametrize("nothing", [None, "", "[]"])
@pytest.mark.parametrize("name", nova_properties.VOLUMES)
def test_an_empty_list_of_volumes_is_ignored(name: str, nothing: str | None) -> None:
    assert read(**{name: nothing}).contradiction is None


@pytest.mark.parametrize("broken", [{"id": "no id\n"}, {"created_at": "yesterday"}])
def test_an_image_whose_id_or_time_is_malformed_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        nova_properties.read(image(**broken))
