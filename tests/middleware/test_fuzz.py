"""Thousands of random requests, each checked against the invariants of the filter."""

import json
import os

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import target
from tests.fuzz.target import Request, Target

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "2000"))
"""The number of requests."""

LATIN = st.text(st.characters(max_codepoint=255), max_size=20)


def text_of(*pieces: str) -> st.SearchStrategy[str]:
    """One of ``pieces``, with other pieces and random letters inserted."""
    more = st.lists(st.sampled_from(target.WORDS) | LATIN, max_size=4)

    def mixed(start: str, words: list[str], at: int) -> str:
        cut = at % (len(start) + 1)
        return start[:cut] + "".join(words) + start[cut:]

    return st.sampled_from(pieces) | st.builds(
        mixed, st.sampled_from(pieces), more, st.integers(0, 200)
    )


QUERIES = st.lists(st.sampled_from(target.WORDS) | LATIN, max_size=8).map("".join)
NAMES = (*target.TUPLES[2], "X-Relation-Label")
HEADERS = st.sampled_from(target.TUPLES) | st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([target.UUID, "i", "backup", "daily", "boot"]) | LATIN
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "owner", "name", "kind", "image_id", "label"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["POST", "POST", "GET", *target.METHODS]),
    path=text_of("/v2/images", *target.PATHS),
    query=st.just("") | QUERIES,
    script=st.sampled_from(["", *target.SCRIPTS]),
    content_type=st.sampled_from(target.TYPES) | LATIN,
    length=st.none() | st.sampled_from(["", "0", "3", "999", "-1", "+2", "9" * 20]) | LATIN,
    terminated=st.booleans(),
    body=st.sampled_from(target.BODIES)
    | text_of(*(body.decode() for body in target.BODIES)).map(as_bytes)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=40),
    headers=st.builds(lambda one, two: {**one, **two}, st.sampled_from(target.CALLERS), HEADERS),
)
SERVICE_HEADERS = {**target.CALLERS[0], **target.TUPLES[0]}
RECORDING = st.builds(
    Request,
    method=st.sampled_from(["POST", "POST", "POST", *target.METHODS]),
    path=text_of(*target.PATHS[:4]),
    query=st.just("") | QUERIES,
    content_type=st.sampled_from(target.TYPES),
    body=st.sampled_from(target.BODIES[:3]),
    headers=st.just(SERVICE_HEADERS),
)
"""Requests of a trusted service that are almost valid."""


@pytest.fixture(scope="module")
def fuzzed() -> Target:
    return Target()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(request=REQUESTS | RECORDING)
@example(Request(headers=SERVICE_HEADERS))
@example(Request("GET", query="a;_method=POST", headers=SERVICE_HEADERS))
@example(Request(body=b'{"owner": "\\ud800"}', headers=SERVICE_HEADERS))
@example(Request("GET", "/v2/relations", "project_id=%00", headers=SERVICE_HEADERS))
def test_no_request_violates_the_invariants(fuzzed: Target, request: Request) -> None:
    fuzzed.hold(request)
    event("an image was made" if fuzzed.glance.created else "no image was made")
    event("the stub_glance was asked" if fuzzed.glance.seen else "the stub_glance was not asked")
