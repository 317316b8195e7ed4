"""Filters of the templates."""

from django import template

from related_images.integrations.horizon import pages, texts

register = template.Library()
for function in (texts.age, texts.counted, texts.policy, pages.server_tab):
    register.filter(function.__name__, function)
