"""Run the benchmarks, print the table of results and write it to files."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import (
    backups,
    creation,
    image_list,
    image_list_by_relation,
    loading,
    own_routes,
    pass_through,
    report,
    space,
    streaming,
    upkeep,
)
from benchmarks.databases import Databases
from benchmarks.measuring import Result
from benchmarks.sizes import FULL, NORMAL, QUICK, Sizes

Part = Callable[[Path, Sizes, Databases], Iterator[Result]]

PARTS: Final[dict[str, Part]] = {
    "pass-through": lambda directory, sizes, _: pass_through.run(directory, sizes),
    "loading": lambda directory, sizes, _: loading.run(directory, sizes),
    "streaming": lambda directory, sizes, _: streaming.run(directory, sizes),
    "create": creation.run,
    "image-list": image_list.run,
    "image-list-by-relation": image_list_by_relation.run,
    "own-routes": own_routes.run,
    "space": space.run,
    "upkeep": lambda directory, sizes, _: upkeep.run(directory, sizes),
    "backups": lambda directory, sizes, _: backups.run(directory, sizes),
}


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    sizes = QUICK if given.quick else FULL if given.full else NORMAL
    sizes = replace(
        sizes,
        images=tuple(given.images or sizes.images),
        relations=tuple(given.relations or sizes.relations),
        overdue=given.overdue or sizes.overdue,
        upkeep=tuple(given.upkeep or sizes.upkeep),
        databases=tuple(given.databases or sizes.databases),
    )
    results: list[Result] = []
    try:
        measure(given.only or list(PARTS), sizes, results)
    finally:
        report.write(given.output, results, report.machine())
        print(report.table(results))
    missed = [one for one in results if one.verdict.startswith("missed")]
    print(f"\n{len(results)} results, {len(missed)} miss their aim; see {given.output}")
    return 0


def measure(parts: list[str], sizes: Sizes, results: list[Result]) -> None:
    """Run the parts in a temporary directory, and append to ``results``."""
    with (
        tempfile.TemporaryDirectory(prefix="related-images-bench-") as directory,
        Databases(_made(Path(directory) / "databases")) as databases,
    ):
        for name in parts:
            begun = time.monotonic()
            home = _made(Path(directory) / name)
            for result in PARTS[name](home, sizes, databases):
                results.append(result)
                print(report.line(result), file=sys.stderr, flush=True)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, in about 4 minutes")
    add("--full", action="store_true", help="up to 10^6 images and 10^7 relations: some hours")
    add("--images", type=int, nargs="+", metavar="NUMBER", help="images in Glance")
    add("--relations", type=int, nargs="+", metavar="NUMBER", help="recorded relations")
    add(
        "--overdue",
        type=int,
        metavar="NUMBER",
        help="servers, some of them without a recent backup",
    )
    add("--upkeep", type=int, nargs="+", metavar="NUMBER", help="images to reconcile and backfill")
    add("--databases", nargs="+", choices=("sqlite", "mariadb", "postgresql"))
    add("--only", nargs="+", choices=PARTS, help="parts to run (default: all)")
    add("--output", type=Path, default=Path("build/bench"), metavar="DIR", help="%(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
