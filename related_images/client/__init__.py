"""The client: images of instances, through the OpenStack client that is already there.

Needs keystoneauth1 alone.
"""

from related_images.client.context import (
    TupleHeaders,
    carry_tuple,
    for_instance,
    image_adapter,
    in_this_context,
)
from related_images.client.errors import (
    AccessDenied,
    AnswerUnusable,
    ClientError,
    ImageNotOfInstance,
    ImportFailed,
    ImportInvalid,
    ImportNotOffered,
    ImportUnfinished,
    InstallationAmbiguous,
    NotInstanceAware,
    NotThere,
    PayloadTooLarge,
    PolicyEmpty,
    PolicyInvalid,
    RegistryError,
    RegistryUnavailable,
    RegistryUnreachable,
    StateConflict,
    StoreNotOffered,
    Unauthorized,
)
from related_images.client.images import InstanceAwareImageService
from related_images.client.import_request import RemoteImage, Stores
from related_images.client.relations import RelationsClient
from related_images.client.results import Image, RegistryInfo
from related_images.model import Ancestor, Descendant, Instance, InstanceRef, Relation, Usage
from related_images.model import Images as ImagesOfKind

__all__ = [
    "AccessDenied",
    "Ancestor",
    "AnswerUnusable",
    "ClientError",
    "Descendant",
    "Image",
    "ImageNotOfInstance",
    "ImagesOfKind",
    "ImportFailed",
    "ImportInvalid",
    "ImportNotOffered",
    "ImportUnfinished",
    "InstallationAmbiguous",
    "Instance",
    "InstanceAwareImageService",
    "InstanceRef",
    "NotInstanceAware",
    "NotThere",
    "PayloadTooLarge",
    "PolicyEmpty",
    "PolicyInvalid",
    "RegistryError",
    "RegistryInfo",
    "RegistryUnavailable",
    "RegistryUnreachable",
    "Relation",
    "RelationsClient",
    "RemoteImage",
    "StateConflict",
    "StoreNotOffered",
    "Stores",
    "TupleHeaders",
    "Unauthorized",
    "Usage",
    "carry_tuple",
    "for_instance",
    "image_adapter",
    "in_this_context",
]
