"""Whether the value of a property is known already."""

from typing import Any

from heat.engine import function


def is_known(source: Any) -> bool:
    """Whether nothing that a template says here comes from a resource that is still to be made."""
    return all(resource.action != resource.INIT for resource in function.dependencies(source))
