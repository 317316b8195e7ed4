"""Go on after a failure of the database, or after a bug of the filter."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from related_images.errors import ImageInUse, StoreUnavailable

LOG = logging.getLogger(__name__)


@contextmanager
def logged(result: str, *values: object) -> Iterator[None]:
    """Log an exception in the context, and end it: the request works without the filter too.

    :param result: what the failure leads to, with a ``%s`` for each of the ``values``
    :raises ImageInUse: if it is raised in the context, because it is no failure
    """
    try:
        yield
    except ImageInUse:
        raise
    except StoreUnavailable as error:
        LOG.warning(f"{result}: %s", *values, error.for_log())
    except Exception:  # a bug of the filter must not refuse a request that Glance can answer
        LOG.exception(result, *values)
