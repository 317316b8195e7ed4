"""The paths of the filter's routes below Glance's ``/v2``."""

from typing import Final

from related_images.model import SERVER

API: Final = "/v2"

RELATIONS: Final = "/relations"
RELATION: Final = "/images/{image_id}/relations/{installation_uuid}/{instance_id}/{kind}"
IMAGE_RELATIONS: Final = "/images/{image_id}/relations"
ANCESTRY: Final = "/images/{image_id}/ancestry"
DESCENDANTS: Final = "/images/{image_id}/descendants"
DEPENDENTS: Final = "/images/{image_id}/dependents"
DEPENDENT_SUMMARY: Final = "/images/{image_id}/dependents/summary"
ORIGINS: Final = "/origins"
ORIGIN: Final = "/origins/{installation_uuid}/{instance_id}"
WITNESSES: Final = "/witnesses"
INSTANCES: Final = "/instances"
INSTANCE: Final = "/instances/{installation_uuid}/{instance_id}"
USAGES: Final = "/usages"
RESOURCE_TYPES: Final = "/resource-types"
RESOURCE_TYPE: Final = "/resource-types/{name}"
INSTALLATIONS: Final = "/installations"
INSTALLATION: Final = "/installations/{uuid}"
INFO: Final = "/info/relations"
SCHEMA: Final = "/schemas/{name}"
OPENAPI: Final = "/schemas/openapi-relations"

IMAGES: Final = "/images"
"""Glance's own collection of images."""

DEACTIVATE: Final = "/actions/deactivate"
"""The end of the path with which Glance deactivates an image."""


def href(template: str, **ids: str) -> str:
    """Return the path for a link: ``/v2`` and ``template`` with ``ids`` filled in."""
    return API + template.format(**ids)


def type_query(resource_type: str) -> list[tuple[str, str]]:
    """Return the query of a route with the ID of a resource in its path.

    Servers need none, since ``server`` is the default.
    """
    return [] if resource_type == SERVER else [("resource_type", resource_type)]
