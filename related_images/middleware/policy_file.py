"""Check a policy file before it is used.

oslo.policy reads a wrong rule as one that permits nothing, or everything: a rule without a text,
or ``not`` before a misspelled check, would permit every request. So a wrong file is refused.
"""

import ast
import difflib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from oslo_config import cfg

from related_images.errors import ConfigurationError

PREFIX: Final = "related_images:"
"""The first word of the names of the filter's rules."""

CREDENTIALS: Final = (
    *("user_id", "project_id", "domain_id", "system_scope", "roles"),
    *("service_user_id", "service_project_id", "service_roles"),
)
"""What a rule can compare, besides ``role``."""
TARGET: Final = ("user_id", "project_id")
"""What ``%(…)s`` in a rule can refer to: the user and the project of the caller."""

FAULTS: Final = (ValueError, TypeError, AttributeError, RecursionError, OSError, cfg.Error)
"""What oslo.policy raises for a wrong or unreadable file."""

_DEEPEST: Final = 50

_SETTLED: Final = 1.0
"""Seconds after which a program that writes the file is expected to be done."""


def version(path: str) -> tuple[int, ...]:
    """Return what differs if the file was written again, or replaced by a file of any date.

    :raises ConfigurationError: if ``path`` is not a file, or cannot be found
    """
    try:
        found = os.stat(path) if Path(path).is_file() else None
    except OSError as error:  # for example, its directory may not be searched
        raise ConfigurationError(f"policy_file: {error.strerror}: {path}") from None
    if found is None:
        raise ConfigurationError(f"policy_file: {path} does not exist, or is not a file")
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_being_written(version: tuple[int, ...]) -> bool:
    """Return whether the file was written so recently that it may be incomplete.

    The clock of a file server may be ahead.

    :param version: what :func:`version` returned
    """
    _, _, modified, _ = version
    return abs(time.time() - modified / 1e9) < _SETTLED


def read(path: str) -> dict[str, str]:
    """Return the texts of the rules by their names.

    :raises ConfigurationError: if the file is unreadable, is no YAML mapping of texts, or has a
        name twice
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        rules, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read as YAML: {_reason(error)}") from None
    if not text.strip():  # a program that writes it may have only begun
        raise ConfigurationError(f"{path} is empty; a file without rules needs a comment")
    if rules is None:
        return {}
    if not isinstance(rules, dict):
        raise ConfigurationError(f'{path} must have lines of the form "NAME": "RULE"')
    names = [key.value for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{path} has the rule {name!r} twice; keep one of them")
    for name, text in rules.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigurationError(
                f"{path}: the rule {name!r} is wrong: its name or its value is not a text; quote it"
            )
    return rules


def _reason(error: Exception) -> str:
    """Return why a file is no YAML, without its lines: in another file, they may be secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def check(
    path: str, given: Mapping[str, str], parsed: Mapping[str, Any], defaults: Mapping[str, str]
) -> None:
    """Check the rules of a policy file.

    :param given: the rules of the file, as oslo.policy has read them
    :param parsed: the rules of the file and the other defaults, as oslo.policy has parsed them
    :param defaults: the default texts of all rules of the filter
    :raises ConfigurationError: if a rule is unknown or wrong; the message names it
    """
    if read(path) != given:
        raise ConfigurationError(f"{path} changed while it was read")
    try:
        for name, text in given.items():
            _Checking(path, name, parsed).check(text)
        for name in defaults:
            _check_depth(path, name, parsed)
    except RecursionError:
        raise ConfigurationError(f"{path} has a rule that is nested too deeply") from None
    used = {word for name in defaults for word in _reachable(name, parsed)}
    for name in given:
        if name not in defaults and name not in used:
            close = difflib.get_close_matches(name, defaults, 1, 0) or [""]
            raise ConfigurationError(
                f"{path} has an unknown rule {name!r}, to which no other rule refers; "
                f"the closest known rule is {close[0]}"
            )


class _Checking:
    """The check of one rule of a file."""

    def __init__(self, path: str, name: str, parsed: Mapping[str, Any]) -> None:
        self.path, self.name, self.parsed = path, name, parsed

    def check(self, text: str) -> None:
        if not text.strip():
            raise self._wrong('it is empty; "@" permits every request, "!" permits none')
        leaves = list(_leaves(self.parsed[self.name]))
        # oslo.policy puts the check "!" in place of what it cannot parse, or leaves a lone word
        refusals = sum(str(leaf) == "!" for leaf in leaves)
        written = len(re.findall(r"(?<![^\s(])!(?![^\s)])", text))
        if refusals > written or not all(map(callable, leaves)):
            raise self._wrong("it is not a valid expression")
        for leaf in leaves:
            if not type(leaf).__module__.startswith("oslo_policy."):
                raise self._wrong(f"{leaf.kind}: is a check of another package than oslo.policy")
            if str(leaf) not in ("!", "@"):
                self._check_leaf(leaf.kind, leaf.match)

    def _check_leaf(self, kind: str, match: str) -> None:
        if kind == "rule":
            if match not in self.parsed:
                raise self._wrong(f"it refers to the rule {match!r}, which does not exist")
            return
        if kind != "role" and kind not in CREDENTIALS and not _is_constant(kind):
            known = ", ".join(("rule", "role", *CREDENTIALS))
            raise self._wrong(f"{kind}:{match} has an unknown word {kind!r}; allowed are: {known}")
        if not match.strip():
            raise self._wrong(f"{kind}: needs a value")
        if kind.endswith("roles") and match != match.lower():
            raise self._wrong(f"{kind}:{match} must be in lower case")
        try:
            _ = match % dict.fromkeys(TARGET, "")
        except (KeyError, ValueError, TypeError):
            allowed = ", ".join(f"%({name})s" for name in TARGET)
            raise self._wrong(f"{kind}:{match} is malformed; allowed are {allowed}") from None

    def _wrong(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: the rule {self.name!r} is wrong: {reason}")


def _is_constant(kind: str) -> bool:
    try:
        ast.literal_eval(kind)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _leaves(check: Any) -> Iterator[Any]:
    """Yield the checks in a tree of ``and``, ``or`` and ``not``."""
    parts = getattr(check, "rules", None) or [getattr(check, "rule", None)]
    if parts == [None]:
        yield check
        return
    for part in parts:
        yield from _leaves(part)


def _references(name: str, parsed: Mapping[str, Any]) -> list[str]:
    leaves = _leaves(parsed[name])
    return [leaf.match for leaf in leaves if getattr(leaf, "kind", None) == "rule"]


def _reachable(name: str, parsed: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    pending = [name]
    while pending:
        new = set(_references(pending.pop(), parsed)) - found
        found |= new
        pending += new
    return found


def _check_depth(path: str, name: str, parsed: Mapping[str, Any]) -> None:
    """Check that a rule refers neither to itself nor to a chain of too many rules."""
    names = {name}
    for _ in range(_DEEPEST):
        names = {word for one in names for word in _references(one, parsed)}
        if not names:
            return
    raise ConfigurationError(
        f"{path}: the rule {name!r} refers to itself, or to a chain of more than {_DEEPEST} rules"
    )
