"""The migrations of the tables; `related-images db upgrade` runs them."""
