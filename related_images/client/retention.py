"""The rules of :mod:`related_images.client.backups.retention`, by their short name."""

from related_images.client.backups.retention import UNLIMITED, Backup, Decision, Policy, plan

__all__ = ["UNLIMITED", "Backup", "Decision", "Policy", "plan"]
