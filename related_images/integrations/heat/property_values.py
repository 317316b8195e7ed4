"""Decide whether Heat knows the value of a property yet."""

from typing import Any

from heat.engine import function


def is_known(source: Any) -> bool:
    """Return True if every resource that a value depends on has been created.

    :param source: the value in the template, which may contain functions
    """
    return all(resource.action != resource.INIT for resource in function.dependencies(source))
