"""What the checks of a deployment find."""

from dataclasses import dataclass
from typing import Final

OK: Final = "ok"
WRONG: Final = "wrong"
NOT_CHECKED: Final = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    :ivar subject: what was checked
    :ivar result: :data:`OK`, :data:`WRONG` or :data:`NOT_CHECKED`
    :ivar advice: what is wrong and the setting to change, or what the check needs; empty for ``ok``
    """

    subject: str
    result: str
    advice: str = ""


def found(subject: str, problem: str | None) -> Finding:
    """Return the finding of a check: ``ok`` if ``problem`` is ``None``."""
    return Finding(subject, OK) if problem is None else Finding(subject, WRONG, problem)
