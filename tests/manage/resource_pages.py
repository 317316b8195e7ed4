"""The pages of resources that a client of Nova or Cinder lists for a reconciliation."""

from related_images.db.resource_service import ResourceService


def listed(client: ResourceService, after: str = "") -> list[tuple[list[str], str | None]]:
    """Return the IDs of each page and the ID up to which the pages are complete."""
    return [(list(page.resources), page.until) for page in client.pages(after)]
