"""The metadata of ``createImage`` that make an image a backup. tests/nova has the real Nova."""

import pytest
from webob.exc import HTTPBadRequest

from related_images.integrations.nova_backups import take


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("snapshot", {}, ("snapshot", None, {})),
        ("snapshot", {"backup_type": "daily"}, ("snapshot", None, {"backup_type": "daily"})),
        ("backup", {"backup_type": "daily"}, ("backup", "daily", {"backup_type": "daily"})),
        ("backup", {"backup_type": "every day!"}, ("backup", None, {"backup_type": "every day!"})),
        ("snapshot", {"relation_kind": "backup", "a": "b"}, ("backup", None, {"a": "b"})),
        (
            "snapshot",
            {"relation_kind": "backup", "relation_label": "daily"},
            ("backup", "daily", {}),
        ),
    ],
)
def test_what_is_recorded(
    kind: str, given: dict[str, str], expected: tuple[str, str | None, dict[str, str]]
) -> None:
    before = dict(given)
    assert take(kind, given) == expected
    assert given == before


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("snapshot", {"relation_kind": "boot"}, "relation_kind is 'boot', and must be backup"),
        ("snapshot", {"relation_label": "daily"}, "relation_kind is missing, and must be backup"),
        ("snapshot", {"relation_kind": "backup", "relation_label": ""}, "relation_label: the"),
        ("snapshot", {"relation_kind": "backup", "relation_label": "x" * 65}, "give 1 to 64"),
        ("backup", {"relation_kind": "backup"}, "createBackup records the kind backup"),
    ],
)
def test_nova_shows_what_is_malformed(kind: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(HTTPBadRequest) as raised:
        take(kind, given)
    # Nova's ResourceExceptionHandler takes the explanation for the message of its response
    assert message in raised.value.explanation
