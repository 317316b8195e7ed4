"""Which image belongs to which instance, answered by the image registry itself."""

__version__ = "0.1.0"
