"""The backups of instances: which there are, which the rules keep, who lacks a recent one."""

from related_images.client.backups.carried import Carried, carried_by, stored
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.overdue import Late, Search
from related_images.client.backups.policies import Ages
from related_images.client.backups.prune import Pruning, Verdict, decide
from related_images.client.backups.retention import Backup, Decision, Policy, plan

__all__ = [
    "Ages",
    "Backup",
    "Carried",
    "Decision",
    "Inventory",
    "Late",
    "Policy",
    "Pruning",
    "Search",
    "Verdict",
    "carried_by",
    "decide",
    "plan",
    "stored",
]
