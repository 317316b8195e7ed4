"""The revisions, one module each; ``related_images.db.schema.REVISIONS`` lists them."""
