"""The tabs on the pages of a server and of an image. They load their data on first display."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from horizon import tabs

from related_images.integrations.horizon import image_lineage, pages, server_images, services
from related_images.integrations.horizon.faults import explained

MARKER = "images_marker"
"""The parameter with the marker of a page of the images of a server."""


class ServerImagesTab(tabs.Tab):  # type: ignore[misc]
    """The images and backups of a server."""

    name = _("Images and backups")
    slug = "related_images"
    template_name = "related_images/server_images.html"
    preload = False

    def get_context_data(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        server = self.tab_group.kwargs["instance"]
        marker = request.GET.get(MARKER)
        load = lambda: {  # noqa: E731
            "found": server_images.load(
                services.inventory(request), server, marker, pages.size(request)
            )
        }
        return {"server": server, "tab": self.get_id(), **explained(load)}


class LineageTab(tabs.Tab):  # type: ignore[misc]
    """The lineage of an image."""

    name = _("Lineage")
    slug = "related_images"
    template_name = "related_images/lineage.html"
    preload = False

    def get_context_data(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        image_id = self.tab_group.kwargs["image"].id
        return explained(lambda: {"found": image_lineage.load(request, image_id)})
