"""The routes of the plugin under ``/api/related-images/``, for its JavaScript."""

from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views import generic
from horizon.decorators import require_auth
from openstack_dashboard.api.rest import urls

from related_images.integrations.horizon import image_lineage, pages, server_images, services
from related_images.integrations.horizon.faults import explained
from related_images.integrations.horizon.texts import numbers
from related_images.integrations.horizon.volume_snapshots import ProjectSnapshots

IMAGES = 10
"""The largest number of images of which the dialog shows the dependents."""
MARKER = "images_marker"
"""The parameter with the marker of a page of the images of a server."""


@urls.register
@method_decorator(require_auth, "dispatch")
class ServerImages(generic.View):  # type: ignore[misc]
    """The content of the tab of the page of a server."""

    url_regex = r"related-images/servers/(?P<server_id>[0-9A-Za-z-]+)/images/$"

    def get(self, request: Any, server_id: str) -> HttpResponse:
        """Return the content as HTML."""
        load = lambda: {  # noqa: E731
            "found": server_images.load(
                services.inventory(request),
                services.service(request, services.COMPUTE),
                ProjectSnapshots(request),
                server_id,
                request.GET.get(MARKER),
                pages.size(request),
            )
        }
        context = {"server_id": server_id, "tab": pages.TAB, **explained(load)}
        return render(request, "related_images/server_images.html", context)


@urls.register
@method_decorator(require_auth, "dispatch")
class Lineage(generic.View):  # type: ignore[misc]
    """The content of the tab of the AngularJS page of an image."""

    url_regex = r"related-images/images/(?P<image_id>[0-9a-fA-F-]+)/lineage/$"

    def get(self, request: Any, image_id: str) -> HttpResponse:
        """Return the content as HTML."""
        context = explained(lambda: {"found": image_lineage.load(request, image_id)})
        return render(request, "related_images/lineage.html", context)


@urls.register
@method_decorator(require_auth, "dispatch")
class Dependents(generic.View):  # type: ignore[misc]
    """The sentence of the dialog that deletes images."""

    url_regex = r"related-images/dependents/$"

    def get(self, request: Any) -> HttpResponse:
        """Return the sentence, which is empty if nothing depends on the images."""
        image_ids = request.GET.get("image_ids", "").split(",")[:IMAGES]
        shown = explained(lambda: {"text": _sentence(request, image_ids)})
        return JsonResponse({"text": shown.get("text", shown.get("fault"))})


def _sentence(request: Any, image_ids: list[str]) -> str:
    found = image_lineage.dependents(request, image_ids)
    sentences = []
    if found.numbers:
        more = ["…"] * (sum(found.numbers.values()) > len(found.names))
        values = {
            "numbers": numbers(found.numbers),
            "names": ", ".join([*found.names, *more]),
        }
        sentences.append(_("These depend on it: %(numbers)s (%(names)s).") % values)
    if found.is_used_by_others:
        sentences.append(_("Servers or volumes of other projects use it."))
    return " ".join(sentences)
