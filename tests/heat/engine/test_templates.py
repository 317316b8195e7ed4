"""The templates of the documentation. Each is created, updated and deleted."""

import os
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from tests.heat.engine import stacks
from tests.heat.engine.stacks import INSTALLATION, TEMPLATES, Stack, User, configured

SERVER = str(uuid4())


@dataclass(frozen=True)
class Example:
    """A template, its parameters, and the attributes of the image that an update changes."""

    file: str
    needs: tuple[str, ...]
    update: dict[str, str]
    shown: dict[str, str] = field(default_factory=dict)
    related: bool = True

    def parameters(self) -> dict[str, str]:
        known = {
            "location": os.environ[stacks.FILES] + "/disk.raw",
            "installation": INSTALLATION,
            "instance": "inst-1",
            "server": SERVER,
        }
        return {name: known[name] for name in self.needs}


WITHOUT_IMAGE = {"backup-policy.yaml"}

EXAMPLES = [
    Example("image.yaml", ("location",), {"release": "2"}, {"release": "2"}, related=False),
    Example("instance.yaml", ("location", "installation", "instance"), {"label": "weekly"}),
    Example(
        "beside-web-image.yaml",
        ("location", "installation", "instance"),
        {"reviewed": "yes"},
        {"reviewed": "yes", "name": "imported by Heat"},
    ),
    Example("snapshot.yaml", ("server",), {"reason": "after it"}, {"reason": "after it"}),
]


def test_there_is_an_example_for_each_template() -> None:
    tested = {example.file for example in EXAMPLES} | WITHOUT_IMAGE
    assert tested == {it.name for it in TEMPLATES.glob("*.yaml")}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file)
@pytest.mark.usefixtures("nova")
def test_a_template(user: User, example: Example) -> None:
    text = (TEMPLATES / example.file).read_text()
    with configured(installation_uuid=INSTALLATION):
        stack = Stack(user, text, **example.parameters()).create()
        assert (stack.state, stack.reason[:5]) == ("CREATE_COMPLETE", "Stack")
        image_id = stack.output("image")
        assert user.image(image_id)["status"] == "active"

        stack.update(text, **example.parameters(), **example.update)
        assert (stack.state, stack.reason[:5]) == ("UPDATE_COMPLETE", "Stack")
        assert stack.output("image") == image_id
        assert user.image(image_id).items() >= example.shown.items()
        if example.related:
            assert [it["image_id"] for it in stack.output("relations")] == [image_id]

        assert stack.delete().state == "DELETE_COMPLETE"
        assert user.ask("GET", f"/images/{image_id}").status_code == 404
