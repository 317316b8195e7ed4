"""The page about Heat documents every property, attribute, option and error."""

import re
from pathlib import Path
from typing import Any

import pytest

from related_images.client import ClientError
from related_images.integrations.heat import (
    backup_policy,
    heat_credentials,
    image,
    image_relation,
    names,
    schema,
)

PAGE = (Path(__file__).parents[3] / "docs" / "heat.md").read_text()


@pytest.mark.parametrize("name", [*schema.PROPERTIES_SCHEMA, *backup_policy.PROPERTIES_SCHEMA])
def test_every_property_is_documented(name: str) -> None:
    assert re.search(rf"^\| (`\w+`, )*`{name}`", PAGE, re.MULTILINE)


def test_every_property_has_a_constant() -> None:
    assert set(names.OF_TEMPLATES) == set(schema.PROPERTIES_SCHEMA)


@pytest.mark.parametrize("name", [*schema.ATTRIBUTES_SCHEMA, *backup_policy.ATTRIBUTES_SCHEMA])
def test_every_attribute_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE.split("Attributes:")[1]


@pytest.mark.parametrize("option", heat_credentials.OPTIONS, ids=lambda option: option.name)
def test_every_option_is_documented(option: Any) -> None:
    default = "" if option.default is None else f"`{option.default}` "
    assert f"| `{option.name}` | {default}|" in PAGE


@pytest.mark.parametrize(
    "error",
    [
        heat_credentials.RecordingRefused,
        image_relation.RelationTaken,
        image.ImageLost,
        image.ImageProtected,
        backup_policy.PolicyTaken,
    ],
)
def test_every_error_is_documented(error: type[ClientError]) -> None:
    assert f"| `{error.__name__}` | `{error.code}` |" in PAGE
