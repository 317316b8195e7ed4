"""Enable the plugin: the tabs of servers and images, and the dialog that deletes images."""

FEATURE = "related_images"
ADD_INSTALLED_APPS = ["related_images.integrations.horizon"]
AUTO_DISCOVER_STATIC_FILES = True
ADD_ANGULAR_MODULES = ["related-images"]
ADD_SCSS_FILES = ["related_images/related_images.scss"]
EXTRA_TABS = {
    "openstack_dashboard.dashboards.project.instances.tabs.InstanceDetailTabs": (
        (90, "related_images.integrations.horizon.tabs.ServerImagesTab"),
    ),
    "openstack_dashboard.dashboards.project.images.images.tabs.ImageDetailTabs": (
        (90, "related_images.integrations.horizon.tabs.LineageTab"),
    ),
}
