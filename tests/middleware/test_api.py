"""Which paths are ours, and what is read from them."""

import re

import pytest

from related_images.middleware import api


@pytest.mark.parametrize("template", api.ROUTES)
def test_every_path_leads_to_its_own_handlers(template: str) -> None:
    names = re.findall(r"{(\w+)}", template)
    ids = {name: f"relations{number}\n" for number, name in enumerate(names)}
    assert api.route(template.format(**ids)) == (api.ROUTES[template], ids)


@pytest.mark.parametrize("template", api.ROUTES)
def test_what_is_nearly_a_path_of_ours_is_none(template: str) -> None:
    path = re.sub(r"{\w+}", "x", template)
    nearly = [path + "/", "/" + path, path + "/x/y/z/a", path[1:], path.replace("/", "//")]
    if not template.endswith("}"):
        nearly += [path + "x", path + "\n", path[:-2], path.upper()]
    assert [spelled for spelled in nearly if api.route(spelled)] == []


@pytest.mark.parametrize(
    "path", ["", "/", "/images", "/images/x", "/images/x/file", "/images//relations", "/schemas/x"]
)
def test_a_path_of_the_registry_is_not_ours(path: str) -> None:
    assert api.route(path) is None
