"""A paste filter that adds a service catalog with the image services of other regions."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import SHIPPED_PASTE

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SECTION = """
[filter:catalogue]
paste.filter_factory = tests.client.catalogue:filter_factory
file = {file}
"""


def filter_factory(
    global_conf: dict[str, str], file: str
) -> Callable[["WSGIApplication"], "WSGIApplication"]:
    """Set the header that keystonemiddleware sets, which Glance's context middleware reads."""
    catalogue = Path(file).read_text()

    def wrap(app: "WSGIApplication") -> "WSGIApplication":
        def with_catalog(
            environ: "WSGIEnvironment", start_response: "StartResponse"
        ) -> Iterable[bytes]:
            return app({**environ, "HTTP_X_SERVICE_CATALOG": catalogue}, start_response)

        return with_catalog

    return wrap


def paste_with(directory: Path, **regions: str) -> Path:
    """Write the shipped paste file with this filter, and return its path.

    :param regions: the URL of the image service of each region
    """
    endpoints = [{"region": region, "publicURL": url} for region, url in regions.items()]
    file = directory / "catalogue.json"
    file.write_text(json.dumps([{"type": "image", "name": "glance", "endpoints": endpoints}]))
    shipped = SHIPPED_PASTE.read_text()
    path = directory / "paste.ini"
    path.write_text(
        shipped.replace("development-identity context", "development-identity catalogue context")
        + SECTION.format(file=file)
    )
    return path
