"""Adapters to the services. Each imports the library of its service on first use only."""
