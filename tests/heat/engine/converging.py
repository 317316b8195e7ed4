"""Stacks with convergence, Heat's default, which sends a message for each resource.

Here one worker processes the messages one after the other.
"""

from collections import deque
from typing import Any
from unittest import mock

from heat.engine import stack, template
from heat.engine.worker import WorkerService
from heat.rpc.worker_client import WorkerClient

from tests.heat.engine.stacks import Source, Stack


class _Threads:
    """Run tasks immediately instead of in threads."""

    def start(self, stack_id: str, task: Any, *given: Any, **more: Any) -> None:
        task(*given, **more)

    def add_msg_queue(self, *_: Any) -> None:
        """Do nothing, since no messages are sent."""

    remove_msg_queue = add_msg_queue


class ConvergingStack(Stack):
    def _parse(self, name: str, source: Source, parameters: dict[str, str], **more: Any) -> Any:
        parsed = super()._parse(name, source, parameters, **more)
        parsed.convergence = True
        return parsed

    def create(self) -> "ConvergingStack":
        self._stack.validate()
        self._stack.store()
        return self._converge(template=self._stack.t, action=self._stack.CREATE)

    def _update(self, new: Any) -> "ConvergingStack":
        new.validate()
        return self._converge(template=new.t, new_stack=new)

    def delete(self) -> "ConvergingStack":
        nothing = template.Template.create_empty_template(from_template=self._stack.t)
        return self._converge(template=nothing, action=self._stack.DELETE)

    def check(self) -> "ConvergingStack":
        return self._converge(template=self._stack.t, action=self._stack.CHECK)

    def _converge(self, **wanted: Any) -> "ConvergingStack":
        sent = deque[Any]()

        def send(_: WorkerClient, *given: Any, **more: Any) -> None:
            sent.append((given, more))

        with mock.patch.object(WorkerClient, "check_resource", send):
            self._stack.thread_group_mgr = _Threads()
            self._stack.converge_stack(**wanted)
            worker = WorkerService("host", "topic", "engine", _Threads())
            while sent:
                given, more = sent.popleft()
                worker.check_resource(*given, **more)
        context, id = self.user.context, self._stack.id
        self._stack = stack.Stack.load(context, stack_id=id, show_deleted=True, force_reload=True)
        return self
