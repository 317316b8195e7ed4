"""Enable the panel of a project with the backups of its servers."""

PANEL = "server_backups"
PANEL_DASHBOARD = "project"
PANEL_GROUP = "compute"
ADD_PANEL = "related_images.integrations.horizon.server_backups.panel.ServerBackups"
