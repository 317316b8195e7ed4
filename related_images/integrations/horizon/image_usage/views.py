"""The page of the panel."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from horizon.views import HorizonTemplateView

from related_images.integrations.horizon import pages, services
from related_images.integrations.horizon.faults import explained
from related_images.integrations.horizon.image_usage import images


class IndexView(HorizonTemplateView):  # type: ignore[misc]
    """The page of the panel."""

    template_name = "related_images/image_usage.html"
    page_title = _("Image Usage")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the template shows."""
        request = self.request
        marker = request.GET.get("marker")
        load = lambda: {  # noqa: E731
            "found": images.load(services.relations(request), marker, pages.size(request))
        }
        return {**super().get_context_data(**kwargs), "marker": marker, **explained(load)}
