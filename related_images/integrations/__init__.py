"""Thin adapters to the services: each imports its service's own library, and only when used."""
