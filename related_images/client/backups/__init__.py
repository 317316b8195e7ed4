"""Backups of servers.

Make them, list them, delete old ones by rules, find servers without a recent one.
"""

from related_images.client.backups.due import Search, ServerRun
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.overdue import OverdueSearch, OverdueServer
from related_images.client.backups.prune import Pruning, Verdict, decide
from related_images.client.backups.retention import Backup, Decision, Policy, plan
from related_images.client.backups.run import BackupRun, Limits
from related_images.client.backups.server_policies import ServerPolicies, policies_of_server, stored
from related_images.client.backups.servers import Server, Servers
from related_images.client.backups.stored_policy import Ages
from related_images.client.backups.volume_snapshots import VolumeSnapshots

__all__ = [
    "Ages",
    "Backup",
    "BackupRun",
    "Decision",
    "Inventory",
    "Limits",
    "OverdueSearch",
    "OverdueServer",
    "Policy",
    "Pruning",
    "Search",
    "Server",
    "ServerPolicies",
    "ServerRun",
    "Servers",
    "Verdict",
    "VolumeSnapshots",
    "decide",
    "plan",
    "policies_of_server",
    "stored",
]
