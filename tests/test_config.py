"""Ini strings in, frozen settings out; what is wrong is named."""

from pathlib import Path

import pytest

from related_images import config
from related_images.config import load
from related_images.errors import ConfigurationError

SECTION = "filter:related-images"


def test_defaults() -> None:
    found = load(SECTION, {})
    assert found.connection == "sqlite:///related-images.db"
    assert found.recording_roles == {"service"}
    assert found.admin_roles == {"admin"}
    assert found.require_registered_installation is False
    assert (found.guard, found.nova_rotation) == ("off", "pass")
    assert found.database_timeout == 2.0


def test_values_are_converted() -> None:
    found = load(
        SECTION,
        {
            "connection": "postgresql+psycopg://u:p@127.0.0.1/db",
            "recording_roles": "Service, nova",
            "require_registered_installation": "False",
            "database_timeout": "0.5",
        },
    )
    assert found.recording_roles == {"service", "nova"}
    assert found.require_registered_installation is False
    assert found.database_timeout == 0.5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("connection", "related.db"),
        ("recording_roles", " , "),
        ("admin_roles", ""),
        ("require_registered_installation", "perhaps"),
        ("guard", "on"),
        ("nova_rotation", "trusted"),
        ("database_timeout", "soon"),
        ("database_timeout", "0"),
        ("database_timeout", "nan"),
        ("database_timeout", "3600"),
    ],
)
def test_a_malformed_value_is_named(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SECTION, {option: value})
    assert SECTION in str(caught.value)
    assert option in str(caught.value)


def test_an_unknown_option_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SECTION, {"conection": "sqlite:///x.db"})
    assert "'conection'" in str(caught.value)
    assert all(name in str(caught.value) for name in config.OPTIONS)


def test_the_file_of_the_service_is_read_and_the_section_wins(tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text(
        "[DEFAULT]\ndebug = true\n[related_images]\n"
        "connection = sqlite:////var/x%y.db\nrecording_roles = one\nadmin_roles = boss\n"
    )
    found = load(SECTION, {"oslo_config_file": str(file), "recording_roles": "two"})
    assert found.connection == "sqlite:////var/x%y.db"
    assert found.recording_roles == {"two"}
    assert found.admin_roles == {"boss"}


def test_the_file_is_found_by_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "glance-api.conf").write_text("[related_images]\nadmin_roles = boss\n")
    monkeypatch.setenv("OS_GLANCE_CONFIG_DIR", str(tmp_path))
    assert load(SECTION, {"oslo_config_project": "glance"}).admin_roles == {"boss"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where oslo.config looks first for the files of Glance."""
    monkeypatch.delenv("OS_GLANCE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".glance" / "glance-api.conf.d"
    directory.mkdir(parents=True)
    return directory.parent


def test_the_files_are_those_that_the_service_reads(home: Path) -> None:
    texts = {
        "glance-api.conf": "admin_roles = one\nrecording_roles = one\nnova_rotation = verified\n",
        "glance-api.conf.d/10-b.conf": "admin_roles = two\nrecording_roles = two\n",
        "glance-api.conf.d/20-a.conf": "admin_roles = three\n",
        "glance-api.conf.d/30-c.txt": "admin_roles = four\n",
    }
    for name, text in texts.items():
        (home / name).write_text(f"[related_images]\n{text}")
    found = load(SECTION, {"oslo_config_project": "glance"})
    assert (found.admin_roles, found.recording_roles) == (frozenset({"three"}), frozenset({"two"}))
    assert found.nova_rotation == "verified"


@pytest.mark.usefixtures("home")
def test_a_project_without_a_file() -> None:
    with pytest.raises(ConfigurationError, match=r"glnace: there is no glnace-api\.conf"):
        load(SECTION, {"oslo_config_project": "glnace"})


@pytest.mark.parametrize("name", ["", "missing.conf", "."])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(SECTION, {"oslo_config_file": name and str(tmp_path / name)})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[related_images]\nconnection\n", "line 2"),
        (b"# settings\nconnection = secret\n", "line 2"),
        (b"[related_images]\n# K\xfcche\n", "it is not UTF-8 text"),
        (b"[DEFAULT]\nconnection = secret\n", r"has no section \[related_images\]"),
        (b"[related_images]\nguard = on\n", r"\[related_images\] of .*conf guard = 'on' is not"),
        (b"[related_images]\nconnection = mysql:/u:secret@db/x\n", "connection is not valid"),
    ],
)
def test_a_file_that_cannot_be_used(text: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_bytes(text)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load(SECTION, {"oslo_config_file": str(file)})
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_option_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text("[related_images]\nconnexion = sqlite:///x.db\n")
    with pytest.raises(ConfigurationError, match="connexion") as caught:
        load(SECTION, {"oslo_config_file": str(file)})
    assert str(file) in str(caught.value)


def test_settings_do_not_show_the_password() -> None:
    found = load(SECTION, {"connection": "mysql+pymysql://u:secret@db.example.org/x"})
    assert "secret" not in repr(found)
    assert "guard='off'" in repr(found)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load(SECTION, {}).guard = "in-use"  # type: ignore[misc]
