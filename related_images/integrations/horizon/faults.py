"""One sentence for each reason why a page has no data."""

import logging
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from horizon.exceptions import ServiceCatalogException

from related_images import errors
from related_images.client import (
    ClientError,
    Forbidden,
    InstallationAmbiguous,
    NotFound,
    NotInstanceAware,
    ServiceFailed,
    ServiceUnavailable,
    Unauthorized,
)

LOG = logging.getLogger(__name__)


def explained(load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``load`` returns; if it fails, the key ``fault`` with one sentence."""
    try:
        return load()
    except (ClientError, ServiceCatalogException, errors.BadInput) as error:
        LOG.info("a page has no data: %s", error)
        return {"fault": sentence(error)}


def sentence(error: Exception) -> str:
    """Return the sentence about an error that a user reads."""
    texts: list[tuple[type[Exception], str]] = [
        (
            NotInstanceAware,
            _("This cloud does not record which image belongs to which server."),
        ),
        (
            ServiceUnavailable,
            _("The relations of images and servers cannot be read now; try again later."),
        ),
        (NotFound, _("It does not exist, or your account is not permitted to see it.")),
        (Forbidden, _("Your account is not permitted to do this.")),
        (Unauthorized, _("Your session has ended; log in again.")),
        (
            InstallationAmbiguous,
            _("The server is recorded in several installations, so its images are not shown."),
        ),
        (ServiceFailed, _("The compute service or the block storage service failed.")),
        (ServiceCatalogException, _("This cloud has no image service.")),
    ]
    for kind, text in texts:
        if isinstance(error, kind):
            return str(text)
    return str(_("The image service failed; the log of the dashboard has the reason."))
