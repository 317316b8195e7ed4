"""Build one of the two distributions that fill the package ``related_images``.

The setup.cfg beside this file has the metadata. ``client/setup.py`` is this file: it builds
related-images-client.
"""

import gzip
import os
import shutil
import sys
import tarfile
import tempfile
from configparser import ConfigParser
from pathlib import Path
from typing import ClassVar

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SHARED = "related_images"
BUILT = Path("build/lib")
CLIENT = Path("client/setup.cfg")
MERGED = ("options", "options.entry_points", "options.extras_require", "options.package_data")


class BuildModules(build_py):
    """Only the modules directly in ``related_images`` that setup.cfg names: no file is in both."""

    user_options: ClassVar = [
        *build_py.user_options,
        ("modules-of-related-images=", None, "module names"),
    ]

    def initialize_options(self):
        super().initialize_options()
        self.modules_of_related_images = ""

    def finalize_options(self):
        super().finalize_options()
        self.ensure_string_list("modules_of_related_images")

    def run(self):
        if Path(self.build_lib) == BUILT:
            # the files of an earlier build may be of another version
            shutil.rmtree(BUILT / SHARED, ignore_errors=True)
        super().run()

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        if package != SHARED or self.editable_mode:
            return found
        return [one for one in found if one[1] in self.modules_of_related_images]


class ReproducibleArchive(sdist):
    """The same bytes for the same files, dated SOURCE_DATE_EPOCH. Wheels have them already."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        date = os.environ.get("SOURCE_DATE_EPOCH")
        if date is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def without_traces(member):
            member.mtime, member.uid, member.gid = int(date), 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(date)) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=without_traces)
        return name


class WholeRepository(Distribution):
    """Both distributions in one, for an editable install.

    pip cannot install another distribution of the repository as editable because this one needs it.
    """

    def parse_config_files(self, filenames=None, ignore_option_errors=False):
        with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
            merged_options().write(file)
            file.flush()
            super().parse_config_files([file.name], ignore_option_errors)


def merged_options():
    """Return the options of setup.cfg, whose lists have the lines of the client's setup.cfg too."""
    own, client = (ConfigParser(interpolation=None) for _ in range(2))
    for parser, path in ((own, "setup.cfg"), (client, CLIENT)):
        parser.optionxform = str
        parser.read(path)
    name = client["metadata"]["name"]
    for section in MERGED:
        for option, lines in client[section].items():
            own[section][option] = (
                own[section].get(option, "") + lines if lines.startswith("\n") else lines
            )
        for option, lines in own[section].items():
            kept = [line for line in lines.split("\n") if not line.startswith(name)]
            own[section][option] = "\n".join(kept)
    return own


is_editable_repository = "editable_wheel" in sys.argv and CLIENT.exists()
setup(
    cmdclass={"build_py": BuildModules, "sdist": ReproducibleArchive},
    distclass=WholeRepository if is_editable_repository else Distribution,
)
# in the current directory of a program, they would hide the metadata of what is installed
for leftover in Path().glob("*.egg-info"):
    shutil.rmtree(leftover)
