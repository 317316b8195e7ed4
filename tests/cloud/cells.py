"""A second cell of Nova, with its own database, message bus, nova-conductor and nova-compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.cloud.cloud import Cloud, eventually
from tests.cloud.plan import Cell
from tests.cloud.starting import (
    SCHEDULER,
    manage_nova,
    start_compute,
    start_nova,
    start_scheduler,
    wait_for_scheduler,
)

NAME: Final = "cell2"
CONDUCTOR: Final = "nova-conductor"


@contextmanager
def second_cell(cloud: Cloud) -> Iterator[Cell]:
    """Add a second cell to Nova while the block runs.

    Afterwards Nova still knows the cell, but its processes do not run. So start no servers then.
    """
    cell = Cell("other", f"nova_{NAME}", cloud.bus.add_host(NAME))
    cloud.plan.write_conductor(cell)
    cloud.plan.write_compute(cell)
    _make_known(cloud, cell)
    _restart_scheduler(cloud)
    # not related-images-nova-conductor: the conductor of a cell creates no images
    start_nova(cloud, CONDUCTOR, cell.conductor)
    try:
        start_compute(cloud, cell)
        wait_for_scheduler(cloud)
        yield cell
    finally:
        for name in (cell.compute, CONDUCTOR):
            cloud.processes.stop(name)


def _make_known(cloud: Cloud, cell: Cell) -> None:
    manage_nova(cloud, cell.conductor, "db", "sync", "--local_cell")
    where = (
        *("--database_connection", cloud.plan.database_of(cell.database)),
        *("--transport-url", cell.bus),
    )
    manage_nova(cloud, "nova", "cell_v2", "create_cell", "--name", NAME, *where)


def _restart_scheduler(cloud: Cloud) -> None:
    """Restart nova-scheduler, which reads the list of cells at its start."""
    cloud.processes.stop(SCHEDULER)
    eventually(lambda: cloud.consumers("scheduler") == 0, f"the end of {SCHEDULER}")
    start_scheduler(cloud)
