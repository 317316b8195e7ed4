"""Call functions that may take too long, and wait for each only for a limited time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class LimitedCalls:
    """Calls functions in threads of their own, and stops to wait for those that take too long.

    A timeout of a socket limits only the wait for its next bytes. A server that sends one byte now
    and then could delay a caller for any time.

    :param threads: the largest number of threads; a function that nobody waits for any more keeps
        its thread until it returns
    """

    def __init__(self, threads: int) -> None:
        self._free = threading.BoundedSemaphore(threads)

    def call(self, seconds: float, function: Callable[[], Result]) -> Result:
        """Return the result of ``function``.

        :param seconds: the longest time to wait, for a free thread and for the result
        :raises TimeoutError: if there is no result in this time; the function may still run
        """
        until = time.monotonic() + seconds
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError(f"earlier calls take longer than {seconds} seconds")
        outcome: Future[Result] = Future()
        try:
            threading.Thread(target=self._run, args=(function, outcome), daemon=True).start()
        except RuntimeError:  # the process may start no more threads
            self._free.release()
            raise
        try:
            return outcome.result(max(0.0, until - time.monotonic()))
        except TimeoutError as error:
            raise TimeoutError(f"there is no answer in {seconds} seconds") from error

    def _run(self, function: Callable[[], Result], outcome: "Future[Result]") -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again for who waits
            outcome.set_exception(error)
        finally:
            self._free.release()
