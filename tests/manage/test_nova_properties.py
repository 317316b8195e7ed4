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
    """An image as Glance shows one that Nova made; a property that is ``...`` is left out."""
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


def test_an_image_of_nova_is_believed() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert read() == NovaClaim(IMAGE, "demo", SERVER, "snapshot", None, noon, None)


def test_an_image_without_either_mark_claims_nothing() -> None:
    assert nova_properties.read(image(instance_uuid=..., image_type=...)) is None


@pytest.mark.parametrize("mark", nova_properties.MARKS)
def test_one_mark_alone_is_a_doubted_claim(mark: str) -> None:
    assert read(**{mark: ...}).doubt is not None


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
def test_a_backup_alone_has_a_label_if_it_is_a_word(
    kind: str, written: Any, label: str | None
) -> None:
    claim = read(image_type=kind, backup_type=written)
    assert (claim.kind, claim.label, claim.doubt) == (kind, label, None)


@pytest.mark.parametrize(
    ("more", "doubt"),
    [
        ({"size": 0}, "it was made from an instance on volumes"),
        ({"block_device_mapping": '[{"volume_size": 1}]'}, "from an instance on volumes"),
        ({"bdm_v2": "true"}, "from an instance on volumes"),
        ({"base_image_ref": ...}, "Cinder uploaded it"),
        ({"base_image_ref": ""}, "its base_image_ref is"),
        ({"base_image_ref": "no-uuid"}, "its base_image_ref is"),
        ({"instance_uuid": ...}, "it names no instance"),
        ({"instance_uuid": "vm-1"}, "it names no instance"),
        ({"image_type": ...}, "its image_type is"),
        ({"image_type": "boot"}, "its image_type is"),
        ({"user_id": ...}, "it has no user_id"),
        ({"user_id": ""}, "it has no user_id"),
        ({"owner": None}, "it has no owner"),
        ({"owner": "a\nb"}, "its owner is no project"),
    ],
)
def test_what_contradicts_a_claim_is_named(more: dict[str, Any], doubt: str) -> None:
    found = read(**more).doubt
    assert found is not None
    assert doubt in found


@pytest.mark.parametrize("nothing", [None, "", "[]"])
@pytest.mark.parametrize("name", nova_properties.VOLUMES)
def test_an_empty_list_of_volumes_contradicts_nothing(name: str, nothing: str | None) -> None:
    assert read(**{name: nothing}).doubt is None


@pytest.mark.parametrize("broken", [{"id": "no id\n"}, {"created_at": "yesterday"}])
def test_an_image_whose_id_or_time_is_malformed_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        nova_properties.read(image(**broken))
