"""The WSGI application of cinder-api. Its import reads the arguments of the program."""

# ruff: noqa: E402
import os
import sys

sys.argv = ["cinder-api", "--config-file", f"{os.environ['CINDER_CONFIG_FILE']}/cinder.conf"]

from cinder.wsgi.api import application

__all__ = ["application"]
