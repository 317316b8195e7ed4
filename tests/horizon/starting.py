"""Start Horizon with the plugin, in its own virtual environment, on the test cloud."""

import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from related_images import __file__ as package
from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import REGION, RELATED, TYPES
from tests.cloud.starting import INTERFACES, PATHS, glance_beside
from tests.horizon.filling import fill_databases
from tests.servers import ask

ROOT: Final = Path(__file__).parents[2]
VENV: Final = ROOT / ".venv-horizon"
PYTHON: Final = VENV / "bin" / "python"
PLUGIN: Final = Path(package).parent / "integrations" / "horizon"
ENABLED: Final = "_9*.py"
"""The files in the directory ``enabled`` of the plugin that an operator copies."""

MANAGE: Final = "from django.core.management import execute_from_command_line as run; run"

WITHOUT_GRAPHVIZ: Final = {"PATH": str(VENV / "bin")}

DEFAULT, MATERIAL = ("default", "material")
"""The themes of Horizon."""

SETTINGS: Final = """
DEBUG = False
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "a key of a test"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}}
OPENSTACK_KEYSTONE_URL = "{identity}"
STATIC_ROOT = "{static}"
COMPRESS_OFFLINE = True
LOGGING = {{
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {{"console": {{"class": "logging.StreamHandler"}}}},
    "root": {{"handlers": ["console"], "level": "INFO"}},
}}
ANGULAR_FEATURES = {{"images_panel": {is_angular}}}
LOCALE_PATHS = ["{locale}"]
DEFAULT_THEME = "{theme}"
AVAILABLE_THEMES = [(name, name, "themes/" + name) for name in {themes}]
"""
"""Settings of Horizon. The page of images is that of AngularJS or that of Django.

The theme material imports files of the default one. Horizon compresses the style sheets of the
first theme only.
"""


PLAIN, DOWN, LARGE = ("without-the-filter", "database-down", "large")
"""Regions whose Glance has no filter, a filter whose database does not answer, or many backups."""
NO_CINDER: Final = "without-cinder"
"""A region whose Cinder does not answer."""
NOWHERE: Final = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Dashboards:
    """Running Horizons. A user who is logged in to one of them is logged in to all.

    :ivar angular: the URL of the one with the AngularJS pages of images
    :ivar django: the URL of the one with the Django pages of images
    :ivar material: the URLs of both in the theme material, by the URL in the default theme
    :ivar region: the region of the cloud
    """

    angular: str
    django: str
    material: Mapping[str, str]
    region: str = REGION


@contextmanager
def dashboards(cloud: Cloud) -> Iterator[Dashboards]:
    """Run two Horizons in two themes, and more regions."""
    install(cloud)
    nowhere = str(make_url(cloud.plan.database_of(RELATED)).set(port=1))
    no_database = {"connection": nowhere, "database_timeout": "1"}
    with ExitStack() as stack:
        large = fill_databases(cloud)
        for region, told in (
            (PLAIN, {"with_filter": False}),
            (DOWN, {"options": no_database}),
            (LARGE, large),
        ):
            port = stack.enter_context(glance_beside(cloud, region, **told))
            _add_region(cloud, region, glance=f"http://127.0.0.1:{port}")
        _add_region(cloud, NO_CINDER, cinder=NOWHERE)
        angular, django, *material = (
            stack.enter_context(horizon(cloud, theme, is_angular=is_angular))
            for theme in (DEFAULT, MATERIAL)
            for is_angular in (True, False)
        )
        yield Dashboards(angular, django, dict(zip((angular, django), material, strict=True)))


def _add_region(cloud: Cloud, region: str, **others: str) -> None:
    """Add a region with the same services, except for other ones at these URLs."""
    identity = cloud.connection("admin").identity
    identity.create_region(id=region)
    for name in (*TYPES, "keystone"):
        service = identity.find_service(name)
        url = {"keystone": cloud.plan.identity, **cloud.plan.urls, **others}[name]
        url += PATHS.get(name, "")
        for interface in INTERFACES:
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=url, region_id=region
            )


def install(cloud: Cloud) -> None:
    """Install the plugin as docs/horizon.md describes it, and prepare the static files."""
    (enabled,) = VENV.glob("lib/python*/site-packages/openstack_dashboard/local/enabled")
    for file in (PLUGIN / "enabled").glob(ENABLED):
        shutil.copy(file, enabled)
    catalogues = _locale(cloud)
    shutil.copytree(PLUGIN / "locale", catalogues)
    compiling = ("compile", "--directory", str(catalogues), "--domain", "django")
    cloud.processes.run("horizon-pybabel", str(VENV / "bin" / "pybabel"), *compiling)
    for theme in (DEFAULT, MATERIAL):
        name = _write_settings(cloud, theme, is_angular=True)
        for words in (["collectstatic", "--noinput", "--verbosity", "0"], ["compress", "--force"]):
            command = [str(PYTHON), "-c", f"{MANAGE}(['manage.py', *{words!r}])"]
            cloud.processes.run(f"{name}-{words[0]}", *command, **_environment(cloud, name))


@contextmanager
def horizon(cloud: Cloud, theme: str, *, is_angular: bool) -> Iterator[str]:
    """Run Horizon, and yield its URL.

    :param is_angular: whether the page of an image is the AngularJS page, the default of Horizon;
        the other Horizon does not find Graphviz
    """
    name = _write_settings(cloud, theme, is_angular)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        descriptor = listener.fileno()
        options = ("--bind", f"fd://{descriptor}", "--threads", "4", "--timeout", "600")
        command = (str(PYTHON), "-m", "gunicorn", "--no-control-socket", *options)
        told = _environment(cloud, name) | ({} if is_angular else WITHOUT_GRAPHVIZ)
        application = "tests.horizon.dashboard:application"
        cloud.processes.start(name, *command, application, inherited=(descriptor,), **told)
    try:
        eventually(lambda: _answers(cloud, port), name)
        yield f"http://127.0.0.1:{port}"
    finally:
        cloud.processes.stop(name)


def _answers(cloud: Cloud, port: int) -> bool:
    cloud.processes.check()
    try:
        return ask(port, "GET", "/auth/login/").status == 200
    except OSError:
        return False


def _write_settings(cloud: Cloud, theme: str, is_angular: bool) -> str:
    """Write the settings of a Horizon, and return its name."""
    name = f"horizon-{theme}-{'angular' if is_angular else 'django'}"
    # Horizon imports its settings from a package with this name
    home = cloud.plan.home(name) / "local"
    home.mkdir(parents=True, exist_ok=True)
    (home / "__init__.py").touch()
    static = cloud.plan.home(f"static-{theme}")
    text = SETTINGS.format(
        identity=cloud.plan.identity,
        static=static,
        is_angular=is_angular,
        theme=theme,
        themes=list(dict.fromkeys((theme, DEFAULT))),
        locale=_locale(cloud),
    )
    (home / "local_settings.py").write_text(text)
    return name


def _locale(cloud: Cloud) -> Path:
    """Return the directory of the compiled catalogues of messages."""
    return cloud.plan.home("horizon") / "locale"


def _environment(cloud: Cloud, name: str) -> dict[str, str]:
    path = (cloud.plan.home(name), ROOT)
    return {
        "DJANGO_SETTINGS_MODULE": "openstack_dashboard.settings",
        "PYTHONPATH": ":".join(map(str, path)),
    }
