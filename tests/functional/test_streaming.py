"""Bodies of every size and connections are handled as without the filter."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional import streams
from tests.functional.streams import BLOCK, TOKEN, RawConnection, Way, request
from tests.servers import PATIENCE, ServedGlance

MEBIBYTES = int(os.environ.get("RELATED_IMAGES_STREAM_MIB", "32"))
"""The size of an image in MiB; 1024 in a full run."""

ALLOWANCE = 16
"""Allowed difference of memory in MiB; a buffered body would need far more."""

WAYS = [Way("file", chunked=False), Way("file", chunked=True)]
STAGES = [Way("stage", chunked=False), Way("stage", chunked=True)]


@pytest.fixture(scope="module")
def both(glance: ServedGlance, plain_glance: ServedGlance) -> dict[str, ServedGlance]:
    return {"with": glance, "without": plain_glance}


def settled(served: ServedGlance, image_id: str, *busy: str) -> str:
    """Wait until the status of the image is not in ``busy``; return it."""
    deadline = time.monotonic() + PATIENCE
    while (status := streams.status(served, image_id)) in busy and time.monotonic() < deadline:
        time.sleep(0.05)
    return status


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_image_data_round_trip(both: dict[str, ServedGlance], way: Way) -> None:
    peaks = {}
    for name, served in both.items():
        image_id = streams.new_image(served)
        served.peak_memory()
        before = served.peak_memory()
        assert streams.send(served, image_id, way, MEBIBYTES) == 204
        sent = streams.checksum(streams.blocks(MEBIBYTES))
        assert streams.fetched(served, image_id) == sent
        peaks[name] = (served.peak_memory() - before) // 2**20
    assert peaks["with"] <= peaks["without"] + ALLOWANCE


@pytest.mark.parametrize("way", STAGES, ids=str)
def test_staged_image_data_round_trip(both: dict[str, ServedGlance], way: Way) -> None:
    for served in both.values():
        image_id = streams.new_image(served)
        assert streams.send(served, image_id, way, MEBIBYTES) == 204
        method = {"method": {"name": "glance-direct"}}
        accepted = served.request("POST", f"/v2/images/{image_id}/import", TOKEN, body=method)
        assert accepted.status == 202
        assert settled(served, image_id, "uploading", "importing", "queued") == "active"
        assert streams.fetched(served, image_id) == streams.checksum(streams.blocks(MEBIBYTES))


def test_aborted_upload_has_the_same_result(both: dict[str, ServedGlance]) -> None:
    left = {name: after_half_an_upload(served) for name, served in both.items()}
    assert left["with"] == left["without"]


def after_half_an_upload(served: ServedGlance) -> str:
    image_id = streams.new_image(served)
    announced = (f"Content-Length: {2 * len(BLOCK)}", "Content-Type: application/octet-stream")
    with RawConnection(served) as wire:
        wire.send(request("PUT", f"/v2/images/{image_id}/file", *announced), BLOCK)
    return settled(served, image_id, "saving")


def test_aborted_download_is_harmless(both: dict[str, ServedGlance]) -> None:
    for served in both.values():
        image_id = streams.new_image(served)
        assert streams.send(served, image_id, WAYS[0], 4) == 204
        with RawConnection(served) as wire:
            wire.send(request("GET", f"/v2/images/{image_id}/file"))
            assert wire.socket.recv(1024).startswith(b"HTTP/1.1 200")
        assert streams.fetched(served, image_id) == streams.checksum(streams.blocks(4))


Talk = Callable[[RawConnection, str], Iterator[Any]]


def expecting(wire: RawConnection, image_id: str) -> Iterator[Any]:
    """Send a body only after ``100 Continue``."""
    head = request(
        "PUT",
        f"/v2/images/{image_id}/file",
        "Expect: 100-continue",
        "Content-Length: 8",
        "Content-Type: application/octet-stream",
    )
    wire.send(head)
    yield wire.answer()
    wire.send(b"12345678")
    yield wire.answer()
    wire.send(request("GET", f"/v2/images/{image_id}/file"))
    yield wire.answer()


def kept_alive(wire: RawConnection, image_id: str) -> Iterator[Any]:
    """Send requests over one connection, the last with ``Connection: close``."""
    for path in ("/v2/schemas/image", "/v2/nothing", "/v2/images/nothing"):
        wire.send(request("GET", path))
        yield wire.answer()
    wire.send(request("GET", "/v2/schemas/image", "Connection: close"))
    yield wire.answer()
    yield wire.is_at_end()


def pipelined(wire: RawConnection, image_id: str) -> Iterator[Any]:
    """Send requests before the responses to the earlier ones are read."""
    file = f"/v2/images/{image_id}/file"
    wire.send(
        request("PUT", file, body=b"12345678"),
        request("GET", file),
        request("GET", "/v2/schemas/image"),
    )
    for _ in range(3):
        yield wire.answer()


@pytest.mark.parametrize("talk", [expecting, kept_alive, pipelined])
def test_connection_behaves_as_without_the_filter(
    both: dict[str, ServedGlance], talk: Talk
) -> None:
    heard = {}
    for name, served in both.items():
        image_id = streams.new_image(served)
        with RawConnection(served) as wire:
            heard[name] = list(talk(wire, image_id))
    assert heard["with"] == heard["without"]
    assert heard["with"][0]
