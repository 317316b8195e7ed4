"""The paths that the filter handles, and the IDs that it reads from them."""

import re

import pytest

from related_images.middleware import routing

PATHS_AND_METHODS = [
    (path, method) for path, methods in routing.ROUTES.items() for method in methods
]


@pytest.mark.parametrize(("template", "method"), PATHS_AND_METHODS)
def test_every_path_and_method_matches_its_operation(template: str, method: str) -> None:
    names = re.findall(r"{(\w+)}", template)
    ids = {name: f"relations{number}\n" for number, name in enumerate(names)}
    found = routing.match(template.format(**ids), method)
    assert found is not None
    assert (found.operation, dict(found.ids)) == (routing.ROUTES[template][method], ids)


@pytest.mark.parametrize("template", routing.ROUTES)
@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "get", "", "_method"])
def test_other_methods_match_the_allowed_ones(template: str, method: str) -> None:
    found = routing.match(re.sub(r"{\w+}", "x", template), method)
    assert found is not None
    assert (found.operation, found.allowed) == (None, tuple(routing.ROUTES[template]))


@pytest.mark.parametrize("id", ["x", "relations", "instances", "relation"])
@pytest.mark.parametrize("template", routing.ROUTES)
def test_similar_paths_do_not_match(template: str, id: str) -> None:
    path = re.sub(r"{\w+}", id, template)
    nearly = [path + "/", "/" + path, path + "/x/y/z/a", path[1:], path.replace("/", "//")]
    if not template.endswith("}"):
        nearly += [path + "x", path + "\n", path + ".json", path[:-2], path.upper()]
    assert [spelled for spelled in nearly if routing.match(spelled, "GET")] == []


@pytest.mark.parametrize(
    "path", ["", "/", "/images", "/images/x", "/images/x/file", "/images//relations", "/schemas/x"]
)
def test_glances_own_paths_do_not_match(path: str) -> None:
    assert routing.match(path, "GET") is None
