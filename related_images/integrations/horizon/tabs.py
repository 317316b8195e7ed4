"""The tabs on the pages of a server and of an image. They load their data on first display.

Horizon makes the whole page of a server again to load one of its tabs, which takes longer than the
data. So the page has this tab without content, and a route of the plugin has the content.
"""

from typing import Any

from django.utils.translation import gettext_lazy as _
from horizon import tabs

from related_images.integrations.horizon import image_lineage
from related_images.integrations.horizon.faults import explained


class ServerImagesTab(tabs.Tab):  # type: ignore[misc]
    """The images and backups of a server."""

    name = _("Images and backups")
    slug = "related_images"
    template_name = "related_images/server_tab.html"

    def get_context_data(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        return {"server_id": self.tab_group.kwargs["instance"].id}


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
