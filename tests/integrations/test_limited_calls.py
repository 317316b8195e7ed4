"""Calls that are waited for only for a limited time."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from related_images.integrations.limited_calls import LimitedCalls

LONG = 60
"""Seconds that nothing here takes."""


def test_the_result_and_the_error_of_a_call() -> None:
    calls = LimitedCalls(1)
    assert calls.call(LONG, lambda: "done") == "done"
    with pytest.raises(ZeroDivisionError):
        calls.call(LONG, lambda: 1 // 0)
    assert calls.call(LONG, threading.current_thread).daemon


def test_a_call_that_takes_too_long_is_abandoned_and_keeps_its_thread() -> None:
    calls, end, ended = LimitedCalls(1), threading.Event(), threading.Event()

    def slow() -> None:
        end.wait(LONG)
        ended.set()

    with pytest.raises(TimeoutError, match="no answer in 0"):
        calls.call(0.01, slow)
    with pytest.raises(TimeoutError, match="earlier calls take longer"):
        calls.call(0.01, lambda: None)
    end.set()
    assert ended.wait(LONG)
    assert calls.call(LONG, lambda: "free again") == "free again"


def test_an_own_timeout_of_the_function_is_its_error() -> None:
    def refuse() -> None:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(ConnectionRefusedError):
        LimitedCalls(1).call(LONG, refuse)


@contextmanager
def dripping() -> Iterator[tuple[str, threading.Event]]:
    """A server that sends one byte of its response now and then, until the event is set."""
    end = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not end.wait(0.02):
                connection.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", end
        finally:
            end.set()
            thread.join()


def test_a_server_that_responds_byte_by_byte_does_not_delay_the_caller() -> None:
    calls = LimitedCalls(2)
    with dripping() as (url, end):
        # the timeout of the socket alone never ends this request
        with pytest.raises(TimeoutError, match="no answer"):
            calls.call(0.5, lambda: requests.get(url, timeout=LONG))
        assert not end.is_set()
        assert calls.call(LONG, time.monotonic)
