"""One module a revision, in the order of related_images.store.schema.REVISIONS."""
