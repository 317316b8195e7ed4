"""Print which functions the filter of a service wraps or calls, and how many optional arguments.

`python -m tests.matrix.functions nova` fails if a function is missing or has other arguments.
"""

import inspect
import sys
from importlib import import_module

from related_images.integrations.patching import Patcher, PatchTarget


def main(service: str) -> None:
    if service == "cinder":  # cinder-api does this before it loads its filters
        import_module("cinder.objects").register_all()
    filter_module = vars(import_module(f"related_images.integrations.{service}"))
    patcher: Patcher = filter_module[service.upper()]
    targets = [it for it in filter_module.values() if isinstance(it, PatchTarget)]
    found = {target: inspect.signature(patcher.find(target)[2]).parameters for target in targets}
    optional = [
        f"`{target}` has `{target.optional}`"
        for target, arguments in found.items()
        if target.optional in arguments
    ]
    print("; ".join([f"{len(found)} functions of {patcher.service}", *optional]))


if __name__ == "__main__":
    main(sys.argv[1])
