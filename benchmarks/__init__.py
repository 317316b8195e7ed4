"""Benchmarks of Glance with the filter against Glance without it."""
