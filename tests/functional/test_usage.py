"""What is in use and what is not, over the real Glance."""

from typing import Any

import pytest

from tests.functional.cloud import ADMIN, Cloud, Vm, a_vm, user_of
from tests.functional.test_lineage import a_public_image, start

SOME = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"


def usage(cloud: Cloud, *image_ids: str, headers: dict[str, str] = ADMIN) -> Any:
    answer = cloud.call("GET", f"/v2/usages?image_ids={','.join(image_ids)}", headers)
    assert answer.status == 200, answer.body
    return answer.json


def end(cloud: Cloud, vm: Vm) -> None:
    path = f"/v2/instances/{vm.installation}/{vm.id}"
    assert cloud.call("DELETE", path, vm.service).status == 204


def test_the_use_of_images_is_told_in_the_order_asked_for(cloud: Cloud) -> None:
    vm, base, unused = a_vm(), a_public_image(cloud), a_public_image(cloud)
    start(cloud, vm, base)
    never = {"instances": 0, "live_instances": 0, "unused_since": None}
    assert usage(cloud, unused, base, unused) == {
        "usages": [
            {"image_id": unused, **never},
            {"image_id": base, "instances": 1, "live_instances": 1, "unused_since": None},
        ],
        "all_projects": True,
    }
    end(cloud, vm)
    (row,) = usage(cloud, base)["usages"]
    path = f"/v2/instances/{vm.installation}/{vm.id}"
    assert row["unused_since"] == cloud.call("GET", path, ADMIN).json["ended_at"]
    assert row["live_instances"] == 0


def test_a_project_counts_its_own_alone(cloud: Cloud) -> None:
    vm, base = a_vm(), a_public_image(cloud)
    start(cloud, vm, base)
    start(cloud, a_vm(), base)
    own = usage(cloud, base, headers=user_of(vm.project))
    assert (own["usages"][0]["live_instances"], own["all_projects"]) == (1, False)
    assert usage(cloud, base)["usages"][0]["live_instances"] == 2


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "parameter.malformed"),
        ("image_ids=", "image.id-malformed"),
        ("image_ids=x", "image.id-malformed"),
        (f"image_ids={SOME},", "image.id-malformed"),
        (f"image_ids={','.join([SOME] * 101)}", "parameter.malformed"),
        (f"image_ids={SOME}&limit=3", "parameter.unknown"),
        (f"image_ids={SOME}&image_ids={SOME}", "parameter.malformed"),
    ],
)
def test_what_cannot_be_asked(cloud: Cloud, query: str, code: str) -> None:
    answer = cloud.call("GET", f"/v2/usages?{query}", ADMIN)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


@pytest.mark.parametrize("path", ["/v2/relations", "/v2/instances"])
def test_lists_are_narrowed_by_use(cloud: Cloud, path: str) -> None:
    alive, gone, base = a_vm(), a_vm(), a_public_image(cloud)
    for vm in (alive, gone):
        start(cloud, vm, base)
    end(cloud, gone)

    def found(value: str) -> list[str]:
        query = f"{path}?image_id={base}&in_use={value}"
        rows = cloud.call("GET", query, ADMIN).json[path.rpartition("/")[2]]
        return [row["instance_id"] for row in rows]

    assert (found("true"), found("false")) == ([alive.id], [gone.id])
    refused = cloud.call("GET", f"{path}?in_use=yes", ADMIN)
    assert "neither true nor false" in refused.json["error"]["message"]
