"""Every ini block of the docs loads, and the real Glance loads the pipeline of docs/deploy.md."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paste.deploy import loadfilter

from related_images import config
from related_images.integrations import glance
from related_images.middleware import InstanceAwareMiddleware

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FILTER = "filter:related-images"
GLANCE_PASTE = Path(sys.prefix) / "etc/glance/glance-api-paste.ini"


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, default_section="none")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def blocks() -> list[tuple[str, configparser.ConfigParser]]:
    found = [(page, re.findall(r"```ini\n(.*?)```", page.read_text(), re.DOTALL)) for page in PAGES]
    return [(page.name, parsed(text)) for page, texts in found for text in texts]


def with_section(section: str) -> list[configparser.ConfigParser]:
    """Return the blocks with that section, except those of Heat, which has the same name."""
    return [block for page, block in blocks() if block.has_section(section) and page != "heat.md"]


def test_docs_have_ini_blocks() -> None:
    assert len(with_section(FILTER)) >= 3
    assert with_section(config.GROUP)


@pytest.mark.parametrize("block", [b for b in with_section(FILTER) if "use" in b[FILTER]])
def test_filter_section_loads(
    block: configparser.ConfigParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "glance-api.conf").write_text("[related_images]\n")
    monkeypatch.setenv("OS_GLANCE_CONFIG_DIR", str(tmp_path))
    options = dict(block[FILTER])
    if "connection" in options:
        options["connection"] = f"sqlite:///{tmp_path}/related.db"
    lines = "\n".join(f"{name} = {value}" for name, value in options.items())
    (tmp_path / "paste.ini").write_text(f"[{FILTER}]\n{lines}\n")
    monkeypatch.chdir(tmp_path)
    make = loadfilter(f"config:{tmp_path}/paste.ini", name="related-images")
    assert isinstance(make(lambda environ, start_response: []), InstanceAwareMiddleware)


@pytest.mark.parametrize("block", with_section(config.GROUP))
def test_options_section_is_valid(block: configparser.ConfigParser) -> None:
    config.load(config.GROUP, dict(block[config.GROUP]))


LOAD = """
import sys
from glance.common import config, wsgi_app
from oslo_config import cfg
config.set_config_defaults()
cfg.CONF([], project="glance", prog="glance-api", default_config_files=[sys.argv[1]])
app = config.load_paste_app("glance-api")
environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/v2/relations",
           "SERVER_NAME": "x", "SERVER_PORT": "80", "HTTP_HOST": "x", "wsgi.url_scheme": "http",
           "wsgi.version": (1, 0), "wsgi.input": sys.stdin.buffer, "wsgi.errors": sys.stderr}
b"".join(app(environ, lambda status, headers, *_: print("answer", status)))
"""


def started(tmp_path: Path, ours: str, page: str = "deploy.md") -> subprocess.CompletedProcess[str]:
    """Start the real Glance with its own paste file and the additions of a page.

    :param ours: the lines of [related_images] in glance-api.conf
    """
    (shown,) = (
        block for name, block in blocks() if name == page and block.has_section("composite:api")
    )
    merged = parsed(GLANCE_PASTE.read_text())
    merged.read_dict({name: dict(shown[name]) for name in shown.sections()})
    with (tmp_path / "paste.ini").open("w") as file:
        merged.write(file)
    (tmp_path / "glance-api.conf").write_text(
        f"[DEFAULT]\nenabled_import_methods = []\n[paste_deploy]\nflavor = keystone\n"
        f"config_file = {tmp_path}/paste.ini\n[database]\nconnection = sqlite://\n"
        "[keystone_authtoken]\nwww_authenticate_uri = http://127.0.0.1:9\n"
        "auth_url = http://127.0.0.1:9\nauth_type = none\n"
        f"[related_images]\n{ours}"
    )
    return subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "glance-api.conf")],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OS_GLANCE_CONFIG_DIR": str(tmp_path)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "deploy.md"])
def test_keystone_pipeline_of_the_pages(tmp_path: Path, page: str) -> None:
    # in the paste file the % would be an error of PasteDeploy
    done = started(tmp_path, f"connection = sqlite:///{tmp_path}/related-50%.db\n", page)
    assert "answer 401" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("gard = in-use", "unknown option 'gard'; allowed are: connection"),
        ("guard = on", "guard = 'on' is not valid"),
        ("connection = mysql:/u:hush@db", "connection is not valid: an SQLAlchemy URL is needed"),
        ("connection = mysql://u:$hush@db/x", "connection is not valid: a $ is not followed"),
    ],
)
def test_glance_does_not_start_with_an_invalid_option(
    tmp_path: Path, line: str, reason: str
) -> None:
    done = started(tmp_path, f"{line}\n")
    assert done.returncode == 1
    assert f"[related_images] of {tmp_path}/glance-api.conf" in done.stderr
    assert reason in done.stderr
    assert "hush" not in done.stderr + done.stdout


@pytest.mark.parametrize(("line", "code"), [("guard = in-use", 0), ("gard = in-use", 1)])
def test_validator_command_of_the_deployment_page(tmp_path: Path, line: str, code: int) -> None:
    glance.write_configuration(tmp_path)
    conf = tmp_path / "glance-api.conf"
    text = conf.read_text()
    conf.write_text(f"{text}\n[related_images]\n{line}\n[keystone_authtoken]\nauth_type = none\n")
    page = (ROOT / "docs/deploy.md").read_text()
    (called,) = re.findall(r"\$ (oslo-config-validator .*?)```", page, re.DOTALL)
    name, *words = called.replace("\\\n", " ").split()
    words[words.index("--input-file") + 1] = str(conf)
    done = subprocess.run([Path(sys.executable).parent / name, *words], capture_output=True)
    assert done.returncode == code, done.stderr
    assert (b"related_images/gard" in done.stderr) == bool(code)
