"""The cost of the filter in a running Glance: time until the first response, and memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.measuring import Aim, Result, Spread, ratio
from benchmarks.sizes import Sizes
from related_images.db import schema
from related_images.integrations import glance
from tests.servers import paste_without

AIM: Final = Aim(1.05)
_LOAD: Final = """\
import sys, time
begun = time.process_time()
from related_images.integrations.glance import load_app
app = load_app()
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v2/schemas/image", "SCRIPT_NAME": "",
    "SERVER_NAME": "localhost", "SERVER_PORT": "80", "QUERY_STRING": "", "wsgi.url_scheme": "http",
    "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_X_AUTH_TOKEN": "a:b:member", "REMOTE_ADDR": "127.0.0.1"}
b"".join(app(environ, lambda *_: None))
taken = time.process_time() - begun
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
unwanted = sorted({"alembic", "cliff", "sqlalchemy.dialects.postgresql"} & set(sys.modules))
print(taken, status["VmRSS"].split()[0], *unwanted)
import os
os._exit(0)
"""


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    home = directory / "loading"
    home.mkdir()
    glance.write_configuration(home)
    schema.upgrade(f"sqlite:///{home}/related-images.db")
    _load(home, None)
    without = paste_without(home, "related-images")
    rounds = 3 if sizes.quick else 6
    loaded = [(_load(home, None), _load(home, without)) for _ in range(rounds)]
    for number, (what, unit) in enumerate((("processor time to load", "s"), ("memory of", "MiB"))):
        ours = Spread.of([pair[0][number] for pair in loaded])
        theirs = Spread.of([pair[1][number] for pair in loaded])
        yield Result(
            f"{what} Glance with the filter",
            "Glance without the filter",
            "until the first response",
            unit,
            ours,
            theirs,
            ratio(ours, theirs),
            aim=AIM,
        )


def _load(home: Path, paste: Path | None) -> tuple[float, float]:
    environment = {**os.environ, glance.CONFIG_DIRECTORY: str(home)}
    # an installed package is compiled, so that byte code is written here too
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(home / "compiled")
    shipped = Path(__file__).parent.parent / "etc" / "paste.ini"
    environment[glance.PASTE_FILE] = str(paste or shipped)
    result = subprocess.run(
        [sys.executable, "-c", _LOAD], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"Glance does not load: {result.stderr}")
    seconds, kib, *unwanted = result.stdout.split()[-4:]
    if unwanted:
        print("loaded without need:", *unwanted)
    return float(seconds), float(kib) / 1024
