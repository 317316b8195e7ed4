"""Fuzzing of the filter: invariants that hold for every request."""
