"""The smallest JSON patch of an image."""

import pytest

from related_images.integrations.heat import image_patch


@pytest.mark.parametrize(
    ("image", "wanted", "unwanted", "operations"),
    [
        ({}, {}, (), []),
        ({"a": "1"}, {"a": "1"}, (), []),
        ({"a": "1"}, {}, (), []),
        ({"a": "1"}, {"a": "2"}, (), [{"op": "replace", "path": "/a", "value": "2"}]),
        ({}, {"a": "1"}, (), [{"op": "add", "path": "/a", "value": "1"}]),
        ({"a": "1"}, {}, ("a",), [{"op": "remove", "path": "/a"}]),
        ({}, {}, ("a",), []),
        ({}, {"a/b~c": "1"}, (), [{"op": "add", "path": "/a~1b~0c", "value": "1"}]),
        ({"tags": ["x", "y"]}, {"tags": ["y", "x"]}, (), []),
        ({"protected": False}, {"protected": False}, (), []),
    ],
)
def test_a_patch_has_only_the_changes(
    image: dict[str, object],
    wanted: dict[str, object],
    unwanted: tuple[str, ...],
    operations: list[dict[str, object]],
) -> None:
    assert image_patch.patch(image, wanted, unwanted) == operations


def test_tags_of_others_stay() -> None:
    assert image_patch.tags(["theirs", "old"], ["old"], ["new"]) == ["new", "theirs"]


def test_existing_names_are_not_added() -> None:
    assert image_patch.added(["a"], ["b", "a", "c", "b"]) == ["b", "c"]
