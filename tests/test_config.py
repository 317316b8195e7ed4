"""Options, their sources and errors, and the programs of oslo.config."""

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

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
def test_malformed_option_is_named(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SECTION, {option: value})
    assert SECTION in str(caught.value)
    assert option in str(caught.value)


def test_unknown_option_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(SECTION, {"conection": "sqlite:///x.db"})
    assert "'conection'" in str(caught.value)
    assert all(name in str(caught.value) for name in config.OPTIONS)


def test_paste_section_takes_precedence_over_the_service_file(tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text(
        "[DEFAULT]\ndebug = true\n[related_images]\n"
        "connection = sqlite:////var/x%y.db\nrecording_roles = one\nadmin_roles = boss\n"
    )
    found = load(SECTION, {"oslo_config_file": str(file), "recording_roles": "two"})
    assert found.connection == "sqlite:////var/x%y.db"
    assert found.recording_roles == {"two"}
    assert found.admin_roles == {"boss"}


def test_file_is_found_by_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "glance-api.conf").write_text("[related_images]\nadmin_roles = boss\n")
    monkeypatch.setenv("OS_GLANCE_CONFIG_DIR", str(tmp_path))
    assert load(SECTION, {"oslo_config_project": "glance"}).admin_roles == {"boss"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory where oslo.config looks first for the files of Glance."""
    monkeypatch.delenv("OS_GLANCE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".glance" / "glance-api.conf.d"
    directory.mkdir(parents=True)
    return directory.parent


def test_files_are_those_of_the_service(home: Path) -> None:
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
def test_project_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"glnace: oslo\.config finds no glnace-api\.conf"):
        load(SECTION, {"oslo_config_project": "glnace"})


@pytest.mark.parametrize("name", ["", "missing.conf", "."])
def test_unreadable_file_is_refused(name: str, tmp_path: Path) -> None:
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
def test_invalid_file_is_refused(text: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_bytes(text)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load(SECTION, {"oslo_config_file": str(file)})
    assert str(file) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_unknown_option_in_a_file_is_named_with_the_file(tmp_path: Path) -> None:
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


WriteRoles = Callable[[str], None]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, WriteRoles]:
    """The sources of a value in order of precedence; each function writes ``admin_roles`` there."""

    def environment(value: str) -> None:
        monkeypatch.setenv("OS_RELATED_IMAGES__ADMIN_ROLES", value)

    def file_named(name: str) -> WriteRoles:
        return lambda value: write(tmp_path / name, f"admin_roles = {value}")

    return {
        "paste": lambda value: write(tmp_path / "paste", value),
        "environment": environment,
        "directory": file_named("conf.d/10.conf"),
        "second file": file_named("second.conf"),
        "first file": file_named("first.conf"),
    }


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[related_images]\n{text}\n")


def roles_in(directory: Path) -> frozenset[str]:
    files = [str(directory / name) for name in ("first.conf", "second.conf")]
    existing = [path for path in files if Path(path).exists()]
    snippets = [str(directory / "conf.d")] if (directory / "conf.d").exists() else []
    paste = directory / "paste"
    given = {"admin_roles": paste.read_text().split()[-1]} if paste.exists() else {}
    return load(SECTION, given, config.read(config.files_in(existing, snippets))).admin_roles


NAMES = ("paste", "environment", "directory", "second file", "first file")


@pytest.mark.parametrize(("stronger", "weaker"), list(itertools.combinations(NAMES, 2)))
def test_source_with_precedence_wins(
    places: dict[str, WriteRoles], tmp_path: Path, stronger: str, weaker: str
) -> None:
    places[weaker]("weaker")
    assert roles_in(tmp_path) == {"weaker"}
    places[stronger]("stronger")
    assert roles_in(tmp_path) == {"stronger"}


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("connection = mysql://u:a$$b%c@db/x", "connection", "mysql://u:a$b%c@db/x"),
        ("connection = mysql://u:a\\$b@db/x", "connection", "mysql://u:a$b@db/x"),
        ("connection = 'sqlite:///x.db'", "connection", "sqlite:///x.db"),
        ('guard = "in-use"', "guard", "in-use"),
        ("admin_roles = Boss, \"a,B\", 'c'", "admin_roles", {"boss", "a,b", "c"}),
        ("admin_roles = a,\n    b", "admin_roles", {"a", "b"}),
        ("require_registered_installation = Yes", "require_registered_installation", True),
        ("connection = sqlite:///${guard}.db", "connection", "sqlite:///off.db"),
    ],
)
def test_oslo_config_notation(tmp_path: Path, line: str, option: str, value: object) -> None:
    write(tmp_path / "x.conf", line)
    found = getattr(load(SECTION, {}, config.read([str(tmp_path / "x.conf")])), option)
    assert found == value


def test_environment_uses_the_notation_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_RELATED_IMAGES__CONNECTION", "mysql://u:a$$b@db/x")
    assert load(SECTION, {}).connection == "mysql://u:a$b@db/x"


def test_dollar_in_the_paste_section_is_literal() -> None:
    assert load(SECTION, {"connection": "mysql://u:a$$b@db/x"}).connection == "mysql://u:a$$b@db/x"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("GUARD", "on", "guard = 'on' is not valid"),
        ("GARD", "in-use", "unknown option 'gard'; allowed are: connection"),
        ("guard", "in-use", "unknown option 'GUARD'"),
        ("DATABASE_TIMEOUT", "nan", "a number of seconds from 0.05 to 60"),
        ("DATABASE_TIMEOUT", "", "a number of seconds from 0.05 to 60"),
        ("ADMIN_ROLES", ",", "at least one role"),
        ("CONNECTION", "u:secret@db", "an SQLAlchemy URL is needed"),
        ("CONNECTION", "mysql://u:$secret@db/x", r"write \$\$ for each \$"),
        ("GUARD", "$secret", r"write \$\$ for each \$"),
    ],
)
def test_invalid_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"OS_RELATED_IMAGES__{variable}", value)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load(SECTION, {})
    assert "the environment (OS_RELATED_IMAGES__" in str(caught.value)
    assert "secret" not in str(caught.value) or variable == "GUARD"


@pytest.mark.parametrize("line", ["Guard = in-use", "database-timeout = 1", "gard = in-use"])
def test_misspelled_names_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.conf").write_text(f"[Related_Images]\n{line}\n")  # oslo.config reads this name
    with pytest.raises(ConfigurationError, match=r"x\.conf has an unknown option"):
        load(SECTION, {}, config.read([str(tmp_path / "x.conf")]))


SERVICE = """
import logging, sys
from oslo_config import cfg
from related_images.middleware import filter_factory
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
cfg.CONF([], project="glance", prog="glance-api", default_config_files=[sys.argv[1]],
         default_config_dirs=[sys.argv[2]])
filter_factory({}, **dict(word.split("=") for word in sys.argv[3:]))
"""


def served(directory: Path, *paste: str) -> subprocess.CompletedProcess[str]:
    """Load the filter in a service that has read its configuration."""
    words = [str(directory / "glance-api.conf"), str(directory / "conf.d"), *paste]
    return subprocess.run(
        [sys.executable, "-c", SERVICE, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
    )


def test_configuration_of_the_service_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "glance-api.conf", "guard = in-use\nadmin_roles = boss")
    write(tmp_path / "conf.d/10.conf", "nova_rotation = verified")
    done = served(tmp_path, "admin_roles=chief")
    assert done.returncode == 0, done.stderr
    assert "guard = in-use" in done.stdout
    assert "nova_rotation = verified" in done.stdout
    assert "admin_roles = chief" in done.stdout


@pytest.mark.parametrize("name", ["glance-api.conf", "conf.d/10.conf"])
@pytest.mark.parametrize("line", ["gard = in-use", "guard = on"])
def test_invalid_configuration_of_the_service_is_refused(
    tmp_path: Path, name: str, line: str
) -> None:
    write(tmp_path / "glance-api.conf", "")
    write(tmp_path / name, line)
    done = served(tmp_path)
    assert done.returncode == 1
    assert f"ConfigurationError: [related_images] of {tmp_path / name} " in done.stderr


def test_configuration_object_is_accepted_as_in_keystonemiddleware(tmp_path: Path) -> None:
    write(tmp_path / "x.conf", "guard = in-use")
    conf = config.read([str(tmp_path / "x.conf")])
    given = {"oslo_config_config": conf, "oslo_config_project": "nobody"}
    assert load(SECTION, given).guard == "in-use"
    assert load(SECTION, {"oslo_config_config": cfg.ConfigOpts()}).guard == "off"


def program(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / name, "--namespace", "related_images", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_generator_prints_every_option_with_default_and_help() -> None:
    done = program("oslo-config-generator", "--wrap-width", "0")
    assert done.returncode == 0, done.stderr
    assert "[related_images]" in done.stdout
    for option in config.OPTIONS.values():
        (default,) = option.type.format_defaults(option.default)
        assert f"#{option.name} = {default}".rstrip() in done.stdout.splitlines()
        assert str(option.help) in done.stdout


def test_output_of_the_generator_is_readable(tmp_path: Path) -> None:
    text = program("oslo-config-generator").stdout
    (tmp_path / "x.conf").write_text(re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE))
    assert load(SECTION, {}, config.read([str(tmp_path / "x.conf")])) == load(SECTION, {})


@pytest.mark.parametrize(("line", "code"), [("guard = in-use", 0), ("gard = in-use", 1)])
def test_validator_knows_the_options(tmp_path: Path, line: str, code: int) -> None:
    write(tmp_path / "x.conf", line)
    done = program("oslo-config-validator", "--input-file", str(tmp_path / "x.conf"))
    assert done.returncode == code
    assert ("gard" in done.stderr) == bool(code)
