"""nova-compute with a driver that runs no servers, but uploads images.

Start it with ``python -m tests.cloud.compute``.
"""

# ruff: noqa: I001
# import this first: it chooses between threads and greenlets
from nova.cmd import compute

import sys

from nova.virt import fake

from tests.nova.driver import UploadingDriver

if __name__ == "__main__":
    # Nova loads drivers only from its package nova.virt
    fake.UploadingDriver = UploadingDriver
    # oslo.config looks for the configuration of the program with this name
    sys.argv[0] = "nova-compute"
    compute.main()
