"""One module a revision, in the order of related_images.db.schema.REVISIONS."""
