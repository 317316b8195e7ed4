"""Repeat requests to a service that may succeed later, within a rate limit."""

import logging
from collections.abc import Callable
from typing import Final

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from related_images.manage.rate_limit import RateLimit

LOG = logging.getLogger(__name__)

ATTEMPTS: Final = 4
"""Attempts per request, while the service is unreachable or sends ``Retry-After``."""

LONGEST_WAIT: Final = 60
"""The longest ``Retry-After`` that is obeyed, in seconds. A longer one ends the command."""

_BACKOFF: Final = wait_exponential(multiplier=2)
"""Waits before retries of an unreachable service; their sum is long enough for a restart."""


def retrying(rate_limit: RateLimit, is_retriable: Callable[[BaseException], bool]) -> Retrying:
    """Return what calls a function, and calls it again after retriable errors.

    The attribute ``retry_after`` of an error is obeyed; without it the waits grow exponentially.

    :param rate_limit: its clock is used for the waits
    :param is_retriable: returns whether the request may succeed soon
    """
    return Retrying(
        retry=retry_if_exception(is_retriable),
        wait=_wait,
        stop=stop_after_attempt(ATTEMPTS),
        sleep=rate_limit.sleep,
        before_sleep=_log_retry,
        reraise=True,
    )


def is_soon(retry_after: int | None) -> bool:
    """Return whether ``retry_after``, in seconds, is short enough to wait for."""
    return retry_after is not None and retry_after <= LONGEST_WAIT


def _wait(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    retry_after = getattr(error, "retry_after", None)
    return _BACKOFF(state) if retry_after is None else float(retry_after)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    LOG.info("retrying in %g seconds: %s", _wait(state), error)
