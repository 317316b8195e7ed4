"""Filters of the templates."""

from django import template

from related_images.integrations.horizon import pages, texts

register = template.Library()
shown = (texts.age, texts.numbers, texts.policy, texts.reasons, texts.users)
for function in (*shown, pages.server_tab):
    register.filter(function.__name__, function)
