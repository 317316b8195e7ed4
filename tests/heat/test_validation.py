"""What is wrong with a template of an image, without Heat."""

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
LATER = object()
"""In a template: comes from a resource that is still to be made."""


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    cfg.CONF.set_override("installation_uuid", INSTALLATION, GROUP)
    yield
    cfg.CONF.clear_override("installation_uuid", GROUP)
    cfg.CONF.clear_override("property_quota", GROUP)


def is_known(source: Any) -> bool:
    if isinstance(source, dict):
        return all(map(is_known, source.values()))
    return source is not LATER


def value_of(source: Any) -> Any:
    """What Heat makes of it before the resource is there that it comes from."""
    if isinstance(source, dict):
        return {name: value_of(part) for name, part in source.items()}
    return None if source is LATER else source


def faults(**raw: Any) -> list[str]:
    values = {name: value_of(source) for name, source in raw.items()}
    return validation.faults(Template(NOTHING | values, raw, is_known))


def fault(**raw: Any) -> str:
    (found,) = faults(**raw)
    return found


def test_a_template_with_one_source_has_no_fault() -> None:
    assert faults(**SOURCE) == []
    assert faults(image="there") == []
    assert faults(server=SERVER) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"location": "http://host/a", "image": "there"}, "location and image exclude each other"),
        ({}, "the image has no source"),
        ({"location": "", "image": None}, "the image has no source"),
        ({"server": SERVER, "kind": "boot"}, "a snapshot of the server cannot be of the kind boot"),
    ],
)
def test_a_source_is_given_once(raw: dict[str, Any], said: str) -> None:
    assert any(said in found for found in faults(**raw))


@pytest.mark.parametrize("name", ["location", "image", "server"])
def test_a_source_may_come_later(name: str) -> None:
    assert faults(**{name: LATER}) == []


@pytest.mark.parametrize("source", ["location", "image"])
def test_the_kind_boot_needs_a_source_that_may_come_later(source: str) -> None:
    assert faults(**{"server": SERVER, "kind": "boot", source: LATER}) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"server": SERVER, "instance": {"id": "i"}}, "server and instance exclude each other"),
        ({"label": "daily"}, "a label needs a server or an instance"),
        ({"server": SERVER, "label": "two words"}, "the relation label"),
        ({"instance": {"id": "two words"}}, "the server ID"),
        ({"instance": {"id": "i", "installation": "x"}}, "is not a UUID"),
    ],
)
def test_a_relation_is_well_formed(raw: dict[str, Any], said: str) -> None:
    given = {"instance": {"installation": None} | raw["instance"]} if "instance" in raw else {}
    assert said in fault(image="there", **raw | given)


@pytest.mark.parametrize("owner", ["server", "instance"])
def test_a_label_may_wait_for_its_server(owner: str) -> None:
    assert faults(image="there", label="daily", **{owner: LATER}) == []


@pytest.mark.parametrize("raw", [{"label": LATER}, {"instance": LATER, "label": "two words"}])
def test_what_comes_later_is_not_malformed(raw: dict[str, Any]) -> None:
    assert faults(image="there", server=None if "instance" in raw else SERVER, **raw) == []


def test_an_installation_must_be_known() -> None:
    cfg.CONF.set_override("installation_uuid", None, GROUP)
    unknown = {"id": "i", "installation": None}
    assert "no installation is known" in fault(image="there", server=SERVER)
    assert "no installation is known" in fault(image="there", instance=unknown)
    assert faults(image="there", instance={"id": "i", "installation": OTHER}) == []
    assert faults(image="there", instance={"id": "i", "installation": LATER}) == []
    assert faults(image="there", instance=LATER) == []


@pytest.mark.parametrize("visibility", ["public", "private", "community"])
def test_only_a_shared_image_has_members(visibility: str) -> None:
    said = fault(image="there", members=["p"], visibility=visibility)
    assert said == f"an image with members is shared, and not {visibility}"


@pytest.mark.parametrize("visibility", ["shared", None])
def test_an_image_is_shared_unless_said_otherwise(visibility: str | None) -> None:
    assert faults(image="there", members=["p"], visibility=visibility) == []


@pytest.mark.parametrize("name", ["disk_format", "container_format"])
def test_a_location_needs_both_formats_which_may_come_later(name: str) -> None:
    assert "needs disk_format and container_format" in fault(**SOURCE | {name: ""})
    assert faults(**SOURCE | {name: LATER}) == []


@pytest.mark.parametrize("container", ["ami", "ari", "aki"])
def test_a_container_of_a_machine_image_needs_its_own_disk(container: str) -> None:
    formats = {"location": "http://host/a", "container_format": container}
    said = fault(**formats, disk_format="raw")
    assert said.startswith(f"with container_format {container}, disk_format must be the same")
    assert faults(**formats, disk_format=container) == []
    assert faults(**formats, disk_format=LATER) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (7, "the property name 7 is no text"),
        ("", "is not 1 to 255 characters long"),
        ("a" * 256, "is not 1 to 255 characters long"),
        ("os_glance_x", "is reserved for Glance"),
        ("architecture", "architecture is a property .*: give it beside properties"),
        ("visibility", "visibility is a property .*: give it beside properties"),
        ("checksum", "checksum is a property .*: it is Glance's to set"),
    ],
)
def test_a_property_has_a_name_of_its_own(name: Any, said: str) -> None:
    assert re.search(said, fault(image="there", properties={name: "x"}))


@pytest.mark.parametrize("value", [7, True, 1.5, ["x"], None])
def test_the_value_of_a_property_is_text(value: Any) -> None:
    said = fault(image="there", properties={"a": value})
    assert f"the value of the property 'a' is {value!r}, which is no text" in said


def test_the_value_of_a_property_may_come_later() -> None:
    assert faults(image="there", properties={"a": LATER, "b": "x"}) == []
    template = Template(
        NOTHING | {"image": "there", "properties": {"a": None}},
        {"image": "there", "properties": LATER},
        is_known,
    )
    assert validation.faults(template) == []


def test_an_image_has_no_more_properties_than_the_quota() -> None:
    cfg.CONF.set_override("property_quota", 2, GROUP)
    assert faults(image="there", properties={"a": "x", "b": "x"}) == []
    said = fault(image="there", architecture="x86_64", properties={"a": "x", "b": "x"})
    assert said.startswith("the image would have 3 properties and 2 are allowed")


def test_all_faults_are_found_together() -> None:
    found = faults(location="http://host/a", image="there", label="daily", properties={"a": 7})
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
def test_a_template_asks_for_one_relation(
    raw: dict[str, Any], wanted: WantedRelation | None
) -> None:
    assert validation.wanted_relation(NOTHING | raw) == wanted


def test_a_malformed_label_is_refused() -> None:
    with pytest.raises(BadInput):
        validation.wanted_relation(NOTHING | {"server": SERVER, "label": "two words"})
