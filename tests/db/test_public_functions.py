"""The modules of the use cases have the same structure."""

import importlib
import inspect

import pytest

USE_CASES = (
    "backfill",
    "delete_protection",
    "installations",
    "instances",
    "lineage",
    "image_list",
    "listing",
    "merge",
    "notifications",
    "origins",
    "purge",
    "reconcile",
    "reconcile_resources",
    "recorded_backups",
    "recording",
    "reconciliation_state",
    "usages",
    "witnesses",
)
FOR_OTHER_USE_CASES = {
    "delete_protection.check_start",
    "installations.bound_to",
    "installations.check_reporter",
    "installations.registered_in",
}
"""Functions that other use cases call in their own transactions."""


@pytest.mark.parametrize("name", USE_CASES)
def test_no_public_function_of_a_use_case_takes_a_connection(name: str) -> None:
    module = importlib.import_module(f"related_images.db.{name}")
    public = {
        f"{name}.{function}": next(iter(inspect.signature(value).parameters), None)
        for function, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not function.startswith("_")
    }
    assert "database" in public.values()
    assert {one for one, first in public.items() if first == "connection"} <= FOR_OTHER_USE_CASES
