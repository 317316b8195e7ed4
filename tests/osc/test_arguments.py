"""Wrong usage has the exit code 2 and an error that says what is allowed."""

import pytest
from osc_lib.command.command import Command

from related_images.osc.image_ancestry import ListDescendant
from related_images.osc.image_relation import CreateRelation, DeleteRelation, ListRelation
from related_images.osc.server_image import ListServerImage
from tests.osc.running import Cloud

NOBODY = Cloud("http://127.0.0.1:1", "t")
REFUSED = [
    (
        ListRelation,
        ("--installation", "home"),
        "--installation: the installation UUID 'home' is not",
    ),
    (ListRelation, ("--kind", "copy"), "choose from"),
    (ListRelation, ("--label", "ä"), "is malformed; give 1 to 64 of the characters"),
    (ListRelation, ("--source", "me"), "choose from"),
    (
        ListRelation,
        ("--created-after", "monday"),
        "--created-after='monday' is not an ISO 8601 time",
    ),
    (ListRelation, ("--created-before", "13"), "--created-before='13' is not an ISO 8601 time"),
    (ListRelation, ("--limit", "0"), "'0' is not a whole number from 1"),
    (ListRelation, ("--limit", "1" * 20), "is not a whole number from 1 to 999999999"),
    (ListRelation, ("--limit", "-1"), "'-1' is not a whole number from 1"),
    (ListDescendant, ("--depth", "x", "image"), "'x' is not a whole number from 1"),
    (ListDescendant, (), "required: <image>"),
    (ListServerImage, (), "one of the arguments <server> --all is required"),
    (CreateRelation, ("web-1", "image"), "required: --kind"),
    (CreateRelation, ("--kind", "boot", "web-1"), "required: <image>"),
    (DeleteRelation, ("--kind", "boot"), "required: <resource>, <image>"),
]


@pytest.mark.parametrize(("command", "arguments", "why"), REFUSED)
def test_wrong_usage(
    command: type[Command],
    arguments: tuple[str, ...],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        NOBODY.run(command, *arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
