"""The public names, and the modules that their import loads."""

import subprocess
import sys

import related_images.client
from related_images import client
from related_images.errors import RelatedImagesError

FOREIGN = ("sqlalchemy", "webob", "glanceclient", "openstack", "alembic", "routes")


def test_all_contains_every_public_name() -> None:
    public = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not isinstance(value, type(related_images))
    }
    assert set(client.__all__) == public
    assert client.__all__ == sorted(client.__all__)


def test_every_error_has_a_unique_code_and_title() -> None:
    # an integration that another test loaded has subclasses too
    errors = {it for it in _below(client.ClientError) if it.__module__.startswith(client.__name__)}
    assert {error.__name__ for error in errors} <= set(client.__all__)
    for what in ("code", "title"):
        assert len({getattr(error, what) for error in errors}) == len(errors)
    assert issubclass(client.ClientError, RelatedImagesError)


def test_the_import_loads_no_server_and_no_other_client() -> None:
    # keystoneauth1 imports osprofiler, which imports WebOb, if they are installed
    brought = _modules_after("related_images.client") - _modules_after("keystoneauth1.adapter")
    assert "related_images" in brought
    assert brought.isdisjoint(FOREIGN)


def _modules_after(module: str) -> set[str]:
    program = f"import {module}, sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.split(".")[0] for name in ran.stdout.split()}


def _below(error: type[Exception]) -> set[type[Exception]]:
    return {error}.union(*(_below(below) for below in error.__subclasses__()))
