"""nova-compute with a driver that runs nothing but uploads: ``python -m tests.cloud.compute``."""

# ruff: noqa: I001
# chooses between threads and greenlets, before anything else
from nova.cmd import compute

import sys

from nova.virt import fake

from tests.nova.driver import UploadingDriver

if __name__ == "__main__":
    # Nova loads its drivers from a package of its own
    fake.UploadingDriver = UploadingDriver
    # oslo.config finds the configuration of the program that has this name
    sys.argv[0] = "nova-compute"
    compute.main()
