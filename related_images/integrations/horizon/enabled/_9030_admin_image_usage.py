"""Enable the panel of administrators with the use of images."""

PANEL = "image_usage"
PANEL_DASHBOARD = "admin"
PANEL_GROUP = "compute"
ADD_PANEL = "related_images.integrations.horizon.image_usage.panel.ImageUsage"
