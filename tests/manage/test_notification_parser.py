"""Notifications of failed creations, with the fields that Nova sends."""

import importlib
from datetime import UTC, datetime
from typing import Any

import pytest

from related_images.db.notifications import Ended
from related_images.errors import NotificationMalformed
from related_images.manage.notification_parser import FINAL_FAILURES, read
from related_images.model import InstanceRef

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def notification(event: str, payload: Any) -> dict[str, Any]:
    return {
        "event_type": event,
        "timestamp": "2026-01-31 12:00:00.000000",
        "payload": {"nova_object.data": payload},
    }


def attempt(exception: str) -> dict[str, Any]:
    fault = {"nova_object.name": "ExceptionPayload", "nova_object.data": {"exception": exception}}
    server = {"uuid": "inst-1", "tenant_id": "demo", "image_uuid": "", "fault": fault}
    return notification("instance.create.error", server)


def not_scheduled(request_spec: Any) -> dict[str, Any]:
    server = {"instance_uuid": "inst-1", "state": "error", "request_spec": request_spec}
    return notification("compute_task.build_instances.error", server)


@pytest.mark.parametrize("exception", sorted(FINAL_FAILURES))
def test_a_server_that_is_not_built_ends(exception: str) -> None:
    modules = [importlib.import_module(f"{name}.exception") for name in ("nova", "cursive")]
    assert any(hasattr(module, exception) for module in modules)
    assert read(NOVA, attempt(exception)) == Ended(InstanceRef(NOVA, "inst-1"), "demo", AT)


@pytest.mark.parametrize(
    "exception", ["ComputeResourcesUnavailable", "GroupAffinityViolation", "libvirtError"]
)
def test_a_server_that_another_host_may_build_does_not_end(exception: str) -> None:
    assert read(NOVA, attempt(exception)) is None


@pytest.mark.parametrize("project", ["demo", None])
def test_a_server_without_a_host_ends(project: str | None) -> None:
    spec = {"nova_object.data": {"instance_uuid": "inst-1", "project_id": project}}
    assert read(NOVA, not_scheduled(spec)) == Ended(InstanceRef(NOVA, "inst-1"), project, AT)
    assert read(NOVA, not_scheduled(None)) == Ended(InstanceRef(NOVA, "inst-1"), None, AT)


@pytest.mark.parametrize("spec", [{}, {"nova_object.data": {"project_id": 5}}, "nonsense"])
def test_a_malformed_specification_is_refused(spec: Any) -> None:
    with pytest.raises(NotificationMalformed):
        read(NOVA, not_scheduled(spec))
