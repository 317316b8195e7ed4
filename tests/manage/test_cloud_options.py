"""The options that select a cloud and an account, read by openstacksdk."""

import argparse

import pytest

from related_images.errors import ConfigurationError
from related_images.manage import cloud_options


def read(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cloud_options.add_options(parser)
    return parser.parse_args(words)


def test_options_select_an_endpoint_and_a_token() -> None:
    endpoint = "http://127.0.0.1:9292"
    args = read("--os-auth-type=admin_token", "--os-token=secret", f"--os-endpoint={endpoint}")
    adapter = cloud_options.adapter(args, "image")
    assert (adapter.get_endpoint(), adapter.get_token()) == (endpoint, "secret")
    assert adapter.session.timeout == cloud_options.TIMEOUT


def test_an_unknown_cloud_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "/dev/null")
    with pytest.raises(ConfigurationError, match="Cloud nowhere was not found"):
        cloud_options.adapter(read("--os-cloud=nowhere"), "image")
