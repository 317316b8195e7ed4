"""The paths of the project under the registry's ``/v2``, and the methods each answers."""

from typing import Final

API: Final = "/v2"

RELATIONS: Final = "/relations"
RELATION: Final = "/images/{image_id}/relations/{installation_uuid}/{instance_id}/{kind}"
IMAGE_RELATIONS: Final = "/images/{image_id}/relations"
ANCESTRY: Final = "/images/{image_id}/ancestry"
DESCENDANTS: Final = "/images/{image_id}/descendants"
INSTANCES: Final = "/instances"
INSTANCE: Final = "/instances/{installation_uuid}/{instance_id}"
USAGES: Final = "/usages"
INSTALLATIONS: Final = "/installations"
INSTALLATION: Final = "/installations/{uuid}"
INFO: Final = "/info/relations"
SCHEMA: Final = "/schemas/{name}"
OPENAPI: Final = "/schemas/openapi-relations"

IMAGES: Final = "/images"
"""The registry's own."""


def href(template: str, **ids: str) -> str:
    """The path of ``template`` with its ``ids``, as it stands in links."""
    return API + template.format(**ids)
