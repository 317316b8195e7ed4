"""Secrets are removed from URLs."""

import pytest

from related_images.client.url_credentials import hide_credentials, without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://images.example.org/web.raw", "https://images.example.org/web.raw"),
        ("http://127.0.0.1:8080/a/web.raw", "http://127.0.0.1:8080/a/web.raw"),
        ("http://[::1]:8080/web.raw", "http://[::1]:8080/web.raw"),
        ("https://example.org/@scope/web.raw", "https://example.org/@scope/web.raw"),
        ("http://user:pw@host/x", "http://***@host/x"),
        ("http://user@host/x", "http://***@host/x"),
        ("http://:pw@host:80/x", "http://***@host:80/x"),
        ("HTTP://user:pw@host", "HTTP://***@host"),
        ("http://us%3Aer:p%40w@host/x", "http://***@host/x"),
        ("http://user%3Apw%40host/x", "http://***@host/x"),
        ("http://user:p@w@host/x", "http://***@host/x"),
        ("http://user:p/w@host/x", "http://***@host/x"),
        ("http://user:p?w@host/x", "http://***@host/x"),
        ("http://user:p#w@host/x", "http://***@host/x"),
        ("http://user:p@s/w@host/x", "http://***@host/x"),
        ("user:pw@host/x", "***@host/x"),
        ("https://host/x?sig=secret&exp=1&empty=", "https://host/x?sig=***&exp=***"),
        ("https://host/x?secret", "https://host/x?***"),
        ("https://user:pw@host/x?sig=a@b#frag", "https://***@host/x?sig=***"),
    ],
)
def test_secrets_are_removed_from_a_url(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_secrets_are_removed_from_each_url_in_a_text() -> None:
    said = "no 'http://user:pw@host/x' nor <https://host/y?sig=pw>; see http://host/z."
    assert hide_credentials(said) == (
        "no 'http://***@host/x' nor <https://host/y?sig=***>; see http://host/z."
    )


def test_secrets_are_removed_from_a_known_url_with_any_characters() -> None:
    url = "http://user:p w'd@host/x"
    assert hide_credentials(f"cannot read {url}: no", url) == "cannot read http://***@host/x: no"
