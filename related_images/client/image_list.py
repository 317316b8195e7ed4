"""Request Glance's image list, restricted by relation."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from related_images.client.errors import NotInstanceAware
from related_images.client.glance import Answer, Glance, PageSizes, text_of
from related_images.client.results import Image
from related_images.protocol import headers, image_list, paths
from related_images.protocol.image_list import PREFIX, WORDS, Restriction

__all__ = ["WORDS", "images", "restriction"]


def restriction(**conditions: Any) -> Restriction:
    """Return the restriction with these conditions, which are named as its fields.

    :raises BadInput: if a value is malformed
    """
    given = {PREFIX + name: value for name, value in conditions.items() if value is not None}
    return image_list.read({name: text_of(value) for name, value in given.items()}, None)


def images(
    glance: Glance, restriction: Restriction, filters: Mapping[str, Any], sizes: PageSizes
) -> Iterator[Image]:
    """Return the images of a restricted list. Each page is requested when the caller reads it.

    :param filters: filters and options of Glance; a tuple is a repeated parameter
    :raises TypeError: if a filter has the name of a parameter for the restriction
    :raises NotInstanceAware: if Glance did not acknowledge the restriction
    """
    _check_filters(filters)
    query = (*restriction.query().items(), *_pairs(filters), *sizes.query())
    # the conditions are in the query, not in headers, which a Glance without the filter ignores
    pages = glance.pages(paths.IMAGES, query)
    found = (image for page in pages for image in _read(page, restriction.acknowledgement()))
    return itertools.islice(found, sizes.limit)


def _check_filters(filters: Mapping[str, Any]) -> None:
    ours = sorted(name for name in filters if name in image_list.NAMES or name.startswith(PREFIX))
    if ours:
        raise TypeError(
            f"{', '.join(ours)} cannot be a filter on a property of the image; it is a parameter "
            f"for the relation, or begins with {PREFIX}; use the arguments, such as kind and label"
        )


def _pairs(filters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in filters.items():
        values = value if isinstance(value, tuple) else (value,)
        yield from ((name, str(each)) for each in values)


def _read(page: Answer, expected: str) -> tuple[Image, ...]:
    applied = page.headers.get(headers.FILTERS_APPLIED)
    if applied != expected:
        raise NotInstanceAware(
            f"Glance acknowledged {applied}, not {expected}, so the list may have other images and "
            "is not used; check that every process behind the endpoint has the related-images "
            "filter, in the same version"
        )
    return page.read(lambda body: tuple(Image(shown, applied) for shown in body["images"]))
