"""A short import path of :mod:`related_images.client.backups.retention`."""

from related_images.client.backups.retention import UNLIMITED, Backup, Decision, Policy, plan

__all__ = ["UNLIMITED", "Backup", "Decision", "Policy", "plan"]
