"""Filters of the templates."""

from django import template

from related_images.integrations.horizon import texts

register = template.Library()
for text in (texts.age, texts.counted, texts.policy):
    register.filter(text.__name__, text)
