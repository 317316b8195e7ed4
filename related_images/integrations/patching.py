"""Patch functions of a service in its own process, after a check of their names and arguments."""

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from related_images.errors import ConfigurationError

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class PatchTarget:
    """A function to patch: its module, its path in the module, and the names of its arguments.

    :ivar optional: an argument that only some versions have, at any position
    """

    module: str
    path: str
    arguments: tuple[str, ...]
    optional: str | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


@dataclass(frozen=True, slots=True)
class Patcher:
    """Patches the functions of one service.

    :param service: the name of the service, as messages show it
    :param unexpected: the error for a function that is missing or has other arguments
    """

    service: str
    unexpected: type[ConfigurationError]

    def patch(
        self, wrappers: Iterable[tuple[PatchTarget, Wrapper]], used: Iterable[PatchTarget] = ()
    ) -> None:
        """Wrap functions, in this order; change nothing if one of them is unexpected.

        :param wrappers: the functions and what wraps each of them
        :param used: functions that wrappers call, which are only checked
        :raises ConfigurationError: if a function is missing or has other arguments
        """
        wrappers = list(wrappers)
        for target in (*(target for target, _ in wrappers), *used):
            self.find(target)
        for target, wrapper in wrappers:
            owner, name, function = self.find(target)
            setattr(owner, name, wrapper(function))

    def find(self, target: PatchTarget) -> tuple[Any, str, Callable[..., Any]]:
        """Return the module or class with the function, the name of the attribute, the function.

        :raises ConfigurationError: if the function is missing or has other arguments
        """
        *owners, name = target.path.split(".")
        try:
            owner = functools.reduce(getattr, owners, importlib.import_module(target.module))
            function = getattr(owner, name)
        except (ImportError, AttributeError) as error:
            raise self._error(f"has no {target} ({error})") from error
        arguments = tuple(inspect.signature(function).parameters)
        if tuple(name for name in arguments if name != target.optional) != target.arguments:
            expected, actual = ", ".join(target.arguments), ", ".join(arguments)
            raise self._error(f"has {target}({actual}), expected is {target}({expected})")
        return owner, name, function

    def _error(self, difference: str) -> ConfigurationError:
        version = importlib.metadata.version(self.service.lower())
        return self.unexpected(
            f"{self.service} {version} {difference}; install a version of related-images that "
            f"supports this {self.service}, or remove the filter and run `related-images listen` "
            "instead"
        )
