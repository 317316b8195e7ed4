"""The module of this package that Heat's plugin loader uses."""

from related_images.integrations.heat import resource_mapping

__all__ = ["resource_mapping"]
