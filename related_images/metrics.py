"""What this process did, counted for a monitoring system in the text form of Prometheus.

A server has several processes and each counts for itself, so every sample bears its process's id.
"""

import os
import threading
from collections import defaultdict
from enum import Enum


class Metric(Enum):
    """Name, type, meaning, and the label that parts the samples."""

    RECORDED = ("recorded_total", "counter", "relations recorded, by kind", "kind")
    REFUSED = ("refused_total", "counter", "requests refused, by error code", "code")
    FAILED = ("failed_total", "counter", "requests that the database failed, by error code", "code")
    FILTERED = ("filtered_total", "counter", "image lists restricted to an instance", "by")
    DATABASE_SECONDS = ("database_seconds_total", "counter", "time in the database", "task")
    DATABASE_TASKS = ("database_tasks_total", "counter", "tasks given to the database", "task")


_lock = threading.Lock()
_samples: dict[tuple[Metric, str], float] = defaultdict(float)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _samples.clear()


os.register_at_fork(after_in_child=_forget)


def add(metric: Metric, label: str, amount: float = 1) -> None:
    """Count ``amount`` more of ``metric``."""
    with _lock:
        _samples[metric, label] += amount


def exposition() -> str:
    """Everything counted so far, as Prometheus reads it."""
    with _lock:
        samples = dict(_samples)
    return "".join(_described(metric, samples) for metric in Metric)


def _described(metric: Metric, samples: dict[tuple[Metric, str], float]) -> str:
    name, type_, meaning, label = metric.value
    lines = [f"# HELP related_images_{name} {meaning}", f"# TYPE related_images_{name} {type_}"]
    lines += [
        f'related_images_{name}{{{label}="{text}",pid="{os.getpid()}"}} {amount:.10g}'
        for (counted, text), amount in sorted(samples.items(), key=lambda item: item[0][1])
        if counted is metric
    ]
    return "\n".join(lines) + "\n"
