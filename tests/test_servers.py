"""If a server of the tests fails to start, its output is reported."""

from pathlib import Path

import pytest

from tests import rabbitmq, servers
from tests.conftest import started


def test_output_of_a_failed_glance_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "RELATED_IMAGES", "import sys; sys.exit('for a reason')")
    with pytest.raises(AssertionError, match="serve does not answer: for a reason"):
        servers.ServedGlance(tmp_path).start()


def test_output_of_a_failed_broker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "BROKER", "/bin/false")
    with pytest.raises(AssertionError, match="the broker does not answer"):
        next(started(rabbitmq.rabbitmq))
