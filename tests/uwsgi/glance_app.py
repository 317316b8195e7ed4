"""The app that uWSGI loads before it forks: the real Glance with the filter."""

from related_images.integrations.glance import load_app

application = load_app()
