"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What a run measures, from ``--quick`` to ``--full``.

    :param images: of Glance, in each size of its list
    :param relations: of ours, in each size of our own routes
    :param overdue: instances among which those without a backup are looked for
    :param rows: relations whose bytes are counted
    :param posts: images made on each side by one client
    :param upkeep: images to reconcile and to backfill
    :param stream: mebibytes of an image that is sent and fetched
    :param databases: on which to make images and ask our own routes
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
    quick: bool = False


QUICK = Sizes(
    (1_000, 10_000), (1_000, 10_000), 10_000, 10_000, 10, 8, ("sqlite",), (300, 3_000), 16, True
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
)
