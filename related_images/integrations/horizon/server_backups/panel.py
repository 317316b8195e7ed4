"""The panel of a project with the backups of its servers."""

import horizon
from django.utils.translation import gettext_lazy as _


class ServerBackups(horizon.Panel):  # type: ignore[misc]
    """The panel. Horizon itself has one with the slug ``backups``, for volumes."""

    name = _("Server Backups")
    slug = "server_backups"
    permissions = ("openstack.services.compute", "openstack.services.image")
