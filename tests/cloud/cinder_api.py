"""The WSGI application of cinder-api, which reads the options of its program when it is imported."""

import os
import sys

sys.argv = ["cinder-api", "--config-file", f"{os.environ['CINDER_CONFIG_FILE']}/cinder.conf"]

from cinder.wsgi.api import application

__all__ = ["application"]
