"""Pages of the lists of Glance, with the markers of Glance."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

from django.urls import reverse
from horizon.utils.functions import get_page_size

from related_images.client import RelationsClient

Item = TypeVar("Item")

LARGEST: Final = 50
"""The number of rows of the largest page: each row may take requests of its own."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A page of a list.

    :ivar marker: the marker of the next page; ``None`` on the last page
    """

    items: list[Item]
    marker: str | None


TAB: Final = "instance_details__related_images"
"""The tab of the page of a server with its images."""


def server_tab(server_id: str) -> str:
    """Return the path of the tab of a server with its images."""
    return f"{reverse('horizon:project:instances:detail', args=[server_id])}?tab={TAB}"


def size(request: Any) -> int:
    """Return the number of rows of a page that the user chose, at most :data:`LARGEST`."""
    return min(int(get_page_size(request)), LARGEST)


def page(
    relations: RelationsClient,
    path: str,
    name: str,
    convert: Callable[[Mapping[str, Any]], Item],
    query: Iterable[tuple[str, str | None]],
) -> Page[Item]:
    """Return one page of a list of Glance, with one request.

    :param name: the name of the list in the response
    :param convert: converts an item
    :param query: the query; values that are ``None`` are left out
    :raises GlanceError: if the request fails
    """
    relations.info()
    given = [(key, value) for key, value in query if value is not None]
    answer = relations.glance.request("GET", path, params=given)
    return answer.read(
        lambda body: Page([convert(one) for one in body[name]], _marker(body.get("next")))
    )


def _marker(link: str | None) -> str | None:
    return next(iter(parse_qs(urlsplit(link).query).get("marker", ())), None) if link else None
