"""Run Glance's own functional tests, from its installed package, with and without the filter."""
