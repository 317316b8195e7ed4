"""A second Nova with a Placement of its own, and the Keystone, Glance and Cinder of the first."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from tests.cloud.cloud import Cloud
from tests.cloud.plan import SECOND, SECOND_NOVA
from tests.cloud.processes import Processes
from tests.cloud.starting import (
    PATHS,
    at_once,
    bind,
    listen,
    new_listener,
    prepare_nova,
    prepare_placement,
    run_nova,
    serve,
    start_compute,
    url_of,
    wait_for_scheduler,
)


@contextmanager
def second_nova(cloud: Cloud) -> Iterator[Cloud]:
    """Run a second Nova, and yield the cloud with this Nova in place of the first."""
    with ExitStack() as stack:
        listeners = {name: stack.enter_context(new_listener()) for name in ("nova", "placement")}
        urls = {name: url_of(one) for name, one in listeners.items()}
        plan = replace(
            cloud.plan,
            directory=cloud.plan.home(SECOND_NOVA),
            bus=cloud.bus.add_host(SECOND_NOVA),
            urls={**cloud.plan.urls, **urls},
            installation=SECOND,
            prefix=f"{SECOND_NOVA}_",
        )
        plan.directory.mkdir()
        plan.write_nova()
        plan.write_clouds(
            plan.clouds, compute=urls["nova"] + PATHS["nova"], placement=urls["placement"]
        )
        processes = Processes(plan.directory)
        stack.callback(processes.stop_all)
        second = Cloud(plan, processes, cloud.bus)
        at_once(
            partial(serve, second, "placement", prepare_placement, listeners),
            partial(prepare_nova, second),
            partial(bind, cloud, SECOND_NOVA, SECOND, "nova"),
        )
        at_once(
            partial(serve, second, "nova", run_nova, listeners),
            partial(start_compute, second, plan.first),
            partial(listen, second, cloud),
        )
        wait_for_scheduler(second)
        yield second
