"""The migrations of the tables, run by ``related-images db upgrade``."""
