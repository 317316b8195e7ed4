"""The sizes of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run: ``--quick``, the default, or ``--full``.

    :param images: numbers of images in Glance, for its list
    :param relations: numbers of relations, for the filter's own routes
    :param overdue: number of instances, for the list of overdue ones
    :param rows: number of relations whose bytes are measured
    :param posts: number of images that one client creates on each side
    :param upkeep: numbers of images to reconcile and to backfill
    :param stream: size in MiB of an image that is uploaded and downloaded
    :param backups: number of servers, and of backups of each, for the commands on backups
    :param databases: databases for creates, lists and the filter's own routes
    """

    images: tuple[int, ...]
    relations: tuple[int, ...]
    overdue: int
    rows: int
    posts: int
    rounds: int
    databases: tuple[str, ...]
    upkeep: tuple[int, ...]
    stream: int
    backups: tuple[int, int]
    quick: bool = False


QUICK = Sizes(
    (1_000, 10_000),
    (1_000, 10_000),
    10_000,
    10_000,
    10,
    8,
    ("sqlite",),
    (300, 3_000),
    16,
    (200, 14),
    True,
)
NORMAL = Sizes(
    (10_000, 100_000),
    (10_000, 100_000, 1_000_000),
    100_000,
    1_000_000,
    60,
    30,
    ("sqlite", "mariadb"),
    (3_000, 30_000),
    256,
    (2_000, 14),
)
FULL = Sizes(
    (10_000, 100_000, 1_000_000),
    (10_000, 100_000, 1_000_000, 10_000_000),
    1_000_000,
    1_000_000,
    150,
    40,
    ("sqlite", "mariadb", "postgresql"),
    (10_000, 100_000, 1_000_000),
    1024,
    (2_000, 14),
)
