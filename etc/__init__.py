"""Installed as ``related_images.etc``: the configuration that is shipped."""
