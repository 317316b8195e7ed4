"""The Django application of the plugin."""

from django.apps import AppConfig


class RelatedImages(AppConfig):  # type: ignore[misc]
    """The application. Its label differs from the name of the package, which is that of Horizon."""

    name = "related_images.integrations.horizon"
    label = "related_images"

    def ready(self) -> None:
        # the import registers the routes
        import related_images.integrations.horizon.rest  # noqa: F401
