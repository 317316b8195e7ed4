"""Errors in the template of an image, found without Heat."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from oslo_config import cfg

from related_images.errors import BadInput
from related_images.integrations.heat import names, validation
from related_images.integrations.heat.heat_credentials import GROUP
from related_images.integrations.heat.validation import Template, WantedRelation
from related_images.model import InstanceRef

INSTALLATION = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "0f8fad5b-d9cb-469f-a165-70867728950f"
SERVER = str(uuid4())
NOTHING: dict[str, Any] = dict.fromkeys(names.OF_TEMPLATES) | {names.KIND: "snapshot"}
SOURCE = {"location": "http://host/a", "disk_format": "raw", "container_format": "bare"}
UNKNOWN = object()
"""The value in a template of a resource that is not created yet."""


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    cfg.CONF.set_override("installation_uuid", INSTALLATION, GROUP)
    yield
    cfg.CONF.clear_override("installation_uuid", GROUP)
    cfg.CONF.clear_override("property_quota", GROUP)


def is_known(source: Any) -> bool:
    if isinstance(source, dict):
        return all(map(is_known, source.values()))
    return source is not UNKNOWN


def value_of(source: Any) -> Any:
    """Return the value that Heat has while the resource is not created yet."""
    if isinstance(source, dict):
        return {name: value_of(part) for name, part in source.items()}
    return None if source is UNKNOWN else source


def problems(**raw: Any) -> list[str]:
    values = {name: value_of(source) for name, source in raw.items()}
    return validation.problems(Template(NOTHING | values, raw, is_known))


def problem(**raw: Any) -> str:
    (found,) = problems(**raw)
    return found


def test_a_template_with_one_source_is_valid() -> None:
    assert problems(**SOURCE) == []
    assert problems(image="there") == []
    assert problems(server=SERVER) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"location": "http://host/a", "image": "there"}, "location and image exclude each other"),
        ({}, "the image has no source"),
        ({"location": "", "image": None}, "the image has no source"),
        ({"server": SERVER, "kind": "boot"}, "a snapshot of the server cannot be of the kind boot"),
    ],
)
def test_a_template_needs_one_source(raw: dict[str, Any], message: str) -> None:
    assert any(message in found for found in problems(**raw))


@pytest.mark.parametrize("name", ["location", "image", "server"])
def test_a_source_may_be_unknown(name: str) -> None:
    assert problems(**{name: UNKNOWN}) == []


@pytest.mark.parametrize("source", ["location", "image"])
def test_the_kind_boot_needs_a_source_that_may_be_unknown(source: str) -> None:
    assert problems(**{"server": SERVER, "kind": "boot", source: UNKNOWN}) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"server": SERVER, "instance": {"id": "i"}}, "server and instance exclude each other"),
        ({"label": "daily"}, "a label needs a server or an instance"),
        ({"server": SERVER, "label": "two words"}, "the relation label"),
        ({"instance": {"id": "two words"}}, "the server ID"),
        ({"instance": {"id": "i", "installation": "x"}}, "is not a UUID"),
    ],
)
def test_a_malformed_relation_is_reported(raw: dict[str, Any], message: str) -> None:
    given = {"instance": {"installation": None} | raw["instance"]} if "instance" in raw else {}
    assert message in problem(image="there", **raw | given)


@pytest.mark.parametrize("owner", ["server", "instance"])
def test_a_label_may_have_an_unknown_server(owner: str) -> None:
    assert problems(image="there", label="daily", **{owner: UNKNOWN}) == []


@pytest.mark.parametrize("raw", [{"label": UNKNOWN}, {"instance": UNKNOWN, "label": "two words"}])
def test_an_unknown_value_is_not_malformed(raw: dict[str, Any]) -> None:
    assert problems(image="there", server=None if "instance" in raw else SERVER, **raw) == []


def test_an_installation_must_be_known() -> None:
    cfg.CONF.set_override("installation_uuid", None, GROUP)
    unknown = {"id": "i", "installation": None}
    assert "no installation is known" in problem(image="there", server=SERVER)
    assert "no installation is known" in problem(image="there", instance=unknown)
    assert problems(image="there", instance={"id": "i", "installation": OTHER}) == []
    assert problems(image="there", instance={"id": "i", "installation": UNKNOWN}) == []
    assert problems(image="there", instance=UNKNOWN) == []


@pytest.mark.parametrize("visibility", ["public", "private", "community"])
def test_only_a_shared_image_has_members(visibility: str) -> None:
    message = problem(image="there", members=["p"], visibility=visibility)
    assert message == f"an image with members must have the visibility shared, not {visibility}"


@pytest.mark.parametrize("visibility", ["shared", None])
def test_an_image_is_shared_by_default(visibility: str | None) -> None:
    assert problems(image="there", members=["p"], visibility=visibility) == []


@pytest.mark.parametrize("name", ["disk_format", "container_format"])
def test_a_location_needs_both_formats_which_may_be_unknown(name: str) -> None:
    assert "needs disk_format and container_format" in problem(**SOURCE | {name: ""})
    assert problems(**SOURCE | {name: UNKNOWN}) == []


@pytest.mark.parametrize("container", ["ami", "ari", "aki"])
def test_an_amazon_container_needs_its_own_disk_format(container: str) -> None:
    formats = {"location": "http://host/a", "container_format": container}
    message = problem(**formats, disk_format="raw")
    assert message == f"container_format {container} needs disk_format {container}, not raw"
    assert problems(**formats, disk_format=container) == []
    assert problems(**formats, disk_format=UNKNOWN) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (7, "the property name 7 is not a string"),
        ("", "is not 1 to 255 characters long"),
        ("a" * 256, "is not 1 to 255 characters long"),
        ("os_glance_x", "is reserved for Glance"),
        (
            "architecture",
            "architecture is an attribute of Glance's images: set it outside properties",
        ),
        ("visibility", "visibility is an attribute of Glance's images: set it outside properties"),
        ("checksum", "checksum is an attribute of Glance's images: only Glance sets it"),
    ],
)
def test_an_invalid_property_name_is_reported(name: Any, message: str) -> None:
    assert re.search(message, problem(image="there", properties={name: "x"}))


@pytest.mark.parametrize("value", [7, True, 1.5, ["x"], None])
def test_the_value_of_a_property_must_be_a_string(value: Any) -> None:
    message = problem(image="there", properties={"a": value})
    assert f"the value of the property 'a' is {value!r}, which is not a string" in message


def test_the_value_of_a_property_may_be_unknown() -> None:
    assert problems(image="there", properties={"a": UNKNOWN, "b": "x"}) == []
    template = Template(
        NOTHING | {"image": "there", "properties": {"a": None}},
        {"image": "there", "properties": UNKNOWN},
        is_known,
    )
    assert validation.problems(template) == []


def test_an_image_has_no_more_properties_than_the_quota() -> None:
    cfg.CONF.set_override("property_quota", 2, GROUP)
    assert problems(image="there", properties={"a": "x", "b": "x"}) == []
    message = problem(image="there", architecture="x86_64", properties={"a": "x", "b": "x"})
    assert message.startswith("the image would have 3 properties and 2 are allowed")


def test_all_errors_are_reported() -> None:
    found = problems(location="http://host/a", image="there", label="daily", properties={"a": 7})
    assert len(found) == 4


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ({}, None),
        ({"instance": {}}, None),
        ({"server": SERVER}, WantedRelation(InstanceRef(INSTALLATION, SERVER), "snapshot", None)),
        (
            {"instance": {"id": "i", "installation": None}, "kind": "backup", "label": "daily"},
            WantedRelation(InstanceRef(INSTALLATION, "i"), "backup", "daily"),
        ),
        (
            {"instance": {"id": "i", "installation": OTHER}, "kind": "boot"},
            WantedRelation(InstanceRef(OTHER, "i"), "boot", None),
        ),
    ],
)
def test_the_relation_of_a_template(raw: dict[str, Any], wanted: WantedRelation | None) -> None:
    assert validation.wanted_relation(NOTHING | raw) == wanted


def test_a_malformed_label_is_refused() -> None:
    with pytest.raises(BadInput):
        validation.wanted_relation(NOTHING | {"server": SERVER, "label": "two words"})
