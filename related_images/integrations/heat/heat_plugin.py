"""What Heat's plugin loader looks for."""

from related_images.integrations.heat import resource_mapping

__all__ = ["resource_mapping"]
