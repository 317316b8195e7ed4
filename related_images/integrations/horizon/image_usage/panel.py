"""The panel of administrators with the use of images."""

import horizon
from django.utils.translation import gettext_lazy as _


class ImageUsage(horizon.Panel):  # type: ignore[misc]
    """The panel."""

    name = _("Image Usage")
    slug = "image_usage"
    permissions = ("openstack.services.image",)
    policy_rules = (("image", "context_is_admin"),)
