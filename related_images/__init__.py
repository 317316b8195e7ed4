"""Record which image belongs to which server, and answer queries about it in front of Glance."""

__version__ = "0.1.0"
