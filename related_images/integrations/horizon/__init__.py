"""The plugin of Horizon: backups of servers, the lineage of images, and the use of images."""
