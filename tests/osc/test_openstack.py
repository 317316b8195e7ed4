"""The program ``openstack`` itself, as a process, with the real Glance."""

import csv
import io
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.client.scripted import Reply, Scripted
from tests.osc.identity import Identity
from tests.osc.running import Cloud, Instance, openstack
from tests.servers import ServedGlance, free_port

pytestmark = pytest.mark.slow

COMMANDS = {
    "image ancestry list": "--long",
    "image descendant list": "--depth",
    "image force delete": "--noindent",
    "image relation create": "--resource-project",
    "image relation delete": "--kind",
    "image relation list": "--created-after",
    "server backup list": "--label",
    "server deletion record": "--force",
    "server image list": "--sort-column",
}


def test_the_images_of_an_instance_as_a_table(instance: Instance, member: Cloud) -> None:
    image_id = instance.image("monday")
    shown = member.openstack("server", "image", "list", instance.id)
    assert (shown.code, shown.errors) == (0, "")
    _, heading, _, row, _ = shown.said.splitlines()
    assert [word.strip() for word in heading.strip("|").split("|")] == [
        "ID",
        "Name",
        "Kind",
        "Label",
        "Status",
        "Created At",
    ]
    assert [word.strip() for word in row.strip("|").split("|")][:-1] == [
        image_id,
        "monday",
        "snapshot",
        "-",
        "queued",
    ]


def test_a_missing_value_is_one_word_in_tables_and_null_in_json(
    instance: Instance, member: Cloud
) -> None:
    image_id = instance.image("monday")
    relations = ("image", "relation", "list", "-c", "Image ID", "-c", "Label", "-c", "Deleted At")
    commands = {
        relations: [image_id, "-", "-"],
        ("image", "ancestry", "list", image_id, "-c", "Image ID", "-c", "Deleted At"): [
            image_id,
            "-",
        ],
        ("server", "image", "list", instance.id, "-c", "ID", "-c", "Label"): [image_id, "-"],
        ("server", "backup", "overdue", "--older-than", "1h", "-c", "Age", "-c", "State"): [
            "-",
            "critical",
        ],
    }
    for command, expected in commands.items():
        assert member.openstack(*command, "-f", "value").said.split() == expected
        table = member.openstack(*command).said.splitlines()[3]
        assert [cell.strip() for cell in table.strip("|").split("|")] == expected
        (row,) = member.openstack(*command, "-f", "json").rows
        nulls = [None if word == "-" else word for word in expected]
        assert list(row.values()) == nulls
        quoted = member.openstack(*command, "-f", "csv", "--quote", "none").said.splitlines()[1]
        assert quoted.split(",") == [word or "" for word in nulls]


def test_a_relation_is_created_listed_and_deleted(instance: Instance, recorder: Cloud) -> None:
    images = [instance.fill(instance.elsewhere().image(name)) for name in ("one", "two")]
    what = ("--installation", instance.installation, "--kind", "backup")
    relation = ("image", "relation")
    created = recorder.openstack(
        *relation, "create", "-f", "json", *what, instance.id, "one", "two"
    )
    assert created.code == 0
    assert created.column("Image ID") == images
    listed = recorder.openstack(
        "server", "backup", "list", "-f", "csv", "--sort", "name:asc", *what[:2], instance.id
    )
    assert [row["ID"] for row in csv.DictReader(io.StringIO(listed.said))] == images
    deleted = recorder.openstack(*relation, "delete", *what, instance.id, "one", "three", "two")
    assert (deleted.code, deleted.said) == (1, "")
    missing, count = deleted.errors.splitlines()
    assert missing.startswith("three: this account sees no image with the name or ID 'three'")
    assert count == "1 of 3 failed"
    left = recorder.openstack(*relation, "list", "-f", "json", *what)
    assert (left.code, left.rows) == (0, [])


def test_glance_without_the_filter(plain_glance: ServedGlance) -> None:
    told = Cloud(plain_glance.url, "alice:demo:member").openstack("server", "image", "list", "x")
    assert (told.code, told.said) == (1, "")
    (line,) = told.errors.splitlines()
    assert line.startswith("this Glance does not have the related-images filter")
    assert "install related-images" in line


def assert_told(cloud: Cloud, *words: str) -> None:
    told = cloud.openstack("image", "relation", "list")
    assert (told.code, told.said) == (1, "")
    last = told.errors.splitlines()[-1]
    for word in words:
        assert word in last


def test_an_unreachable_endpoint() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert_told(Cloud(url, "t"), "GET /v2/info/relations got no answer", url, "check the endpoint")


def test_a_proxy_that_answers_html(scripted: Scripted) -> None:
    html = b"<html><head><title>502</title></head><body><h1>502</h1>try <b>later</b></body></html>"
    scripted.info = Reply(502, html, {"Content-Type": "text/html"})
    assert_told(Cloud(scripted.url, "t"), "answered 502: try later; ")
    scripted.info = Reply(200, html, {"Content-Type": "text/html"})
    assert_told(Cloud(scripted.url, "t"), "the body is not the expected JSON", "the proxies")


def test_a_token_that_is_not_accepted(glance: ServedGlance) -> None:
    assert_told(Cloud(glance.url, "expired"), "answered 401", "authenticate again")


def test_a_role_that_is_not_sufficient(instance: Instance, member: Cloud) -> None:
    image_id = instance.image("one")
    told = member.openstack(
        "image", "relation", "create", "--kind", "backup", instance.id, image_id
    )
    assert told.code == 1
    refused, count = told.errors.splitlines()
    assert refused.startswith(f"{image_id}: POST /v2/relations answered 403: one of these roles")
    assert count == "1 of 1 failed"


def test_an_image_that_is_unknown_or_ambiguous(instance: Instance, member: Cloud) -> None:
    twins = [instance.image("twin"), instance.image("twin")]
    unknown = member.openstack("image", "relation", "list", str(uuid4()))
    assert unknown.code == 1
    assert "answered 404: no image" in unknown.errors
    ambiguous = member.openstack("image", "relation", "list", "twin")
    assert ambiguous.code == 1
    (line,) = ambiguous.errors.splitlines()
    assert line.startswith("there is more than one image with the name or ID 'twin': ")
    assert all(image_id in line for image_id in twins)


def test_wrong_usage() -> None:
    told = Cloud("http://127.0.0.1:1", "t").openstack("server", "image", "list")
    assert told.code == 2
    assert "one of the arguments <server> --all is required" in told.errors


def test_a_cloud_that_is_not_configured() -> None:
    told = openstack("--os-cloud", "nowhere", "image", "relation", "list")
    assert (told.code, told.said) == (1, "")
    assert "Cloud nowhere was not found" in told.errors


def test_with_an_identity_service(instance: Instance, scripted: Scripted, recorder: Cloud) -> None:
    image_id = instance.image("monday")
    identity = Identity(scripted, f"{recorder.url}/v2", recorder.token)
    identity.projects = {instance.project: "the web team", "another-id": "another"}

    def images_of(project: str) -> list[str]:
        listing = ("image", "relation", "list", "-f", "json", "--project", project)
        listed = openstack(*listing, "--server", instance.id, **identity.options())
        assert listed.code == 0, listed.errors
        return [str(image) for image in listed.column("Image ID")]

    assert images_of("the web team") == [image_id]
    assert images_of("another") == []


OVERDUE = ("server", "backup", "overdue", "-f", "json", "--older-than", "0h")


def test_overdue_with_an_identity_service(instance: Instance, scripted: Scripted) -> None:
    mine = replace(instance, project="own-id")
    backup = mine.fill(mine.image("monday", kind="backup"))
    identity = Identity(scripted, f"{mine.glance.url}/v2", mine.recorder)
    told = openstack(*OVERDUE, "--installation", mine.installation, **identity.options())
    assert (told.code, told.errors) == (1, "")
    assert told.column("Newest Backup") == [backup]


def test_overdue_exits_with_3_if_authentication_fails(scripted: Scripted) -> None:
    identity = Identity(scripted, scripted.url, "t")
    nowhere = identity.options() | {"OS_AUTH_URL": f"http://127.0.0.1:{free_port()}/v3"}
    told = openstack(*OVERDUE, **nowhere)
    assert (told.code, told.said) == (3, "")
    assert "Unable to establish connection" in told.errors
    told = openstack(*OVERDUE, **identity.options() | {"OS_PASSWORD": "wrong"})
    assert (told.code, told.said) == (3, "")
    assert "not this one" in told.errors


@pytest.mark.parametrize("refusal", [403, 503])
def test_overdue_exits_with_3_if_the_project_cannot_be_looked_up(
    refusal: int, instance: Instance, scripted: Scripted
) -> None:
    mine = replace(instance, project="own-id")
    identity = Identity(scripted, f"{mine.glance.url}/v2", mine.recorder)
    identity.refusal = refusal
    told = openstack(*OVERDUE, "--project", "the web team", **identity.options())
    assert (told.code, told.said) == (3, "")
    assert "project" in told.errors


@pytest.mark.parametrize(
    ("group", "name", "argument"),
    [
        ("server backup", "create", "--rotate"),
        ("server backup", "list", "--installation"),
        ("server backup", "overdue", "--older-than"),
        ("server backup", "prune", "--keep-daily"),
        ("server image", "create", "--wait"),
        ("server image", "list", "--installation"),
    ],
)
def test_the_commands_do_not_hide_those_of_python_openstackclient(
    group: str, name: str, argument: str
) -> None:
    told = openstack(*group.split(), name, "--help")
    assert (told.code, told.errors) == (0, "")
    assert told.said.startswith(f"usage: openstack {group} {name} ")
    assert argument in told.said


@pytest.fixture(scope="module")
def completion() -> str:
    return openstack("complete").said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shell_completes(command: str, completion: str) -> None:
    (line,) = (line for line in completion.splitlines() if f"{command.replace(' ', '_')}='" in line)
    assert COMMANDS[command] in line
