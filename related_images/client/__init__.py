"""The client library. It sends its requests through an OpenStack client that the program has.

Its only dependency is keystoneauth1.
"""

from related_images.client.errors import (
    ClientError,
    Conflict,
    Forbidden,
    GlanceError,
    GlanceUnreachable,
    ImageNotOfInstance,
    ImportFailed,
    ImportInvalid,
    ImportNotOffered,
    ImportUnfinished,
    InstallationAmbiguous,
    InvalidResponse,
    NotFound,
    NotInstanceAware,
    PayloadTooLarge,
    PolicyEmpty,
    PolicyInvalid,
    ServiceUnavailable,
    StoreNotOffered,
    Unauthorized,
    UploadInvalid,
)
from related_images.client.image import FilterInfo, Image
from related_images.client.images import InstanceAwareImageService
from related_images.client.import_request import RemoteImage, Stores
from related_images.client.instance_context import (
    TupleHeaders,
    carry_tuple,
    for_instance,
    image_adapter,
    in_this_context,
)
from related_images.client.relations import RelationsClient
from related_images.model import (
    Ancestor,
    Descendant,
    Instance,
    InstanceRef,
    NewOrigin,
    Origin,
    Relation,
    Usage,
)
from related_images.model import Images as ImagesOfKind

__all__ = [
    "Ancestor",
    "ClientError",
    "Conflict",
    "Descendant",
    "FilterInfo",
    "Forbidden",
    "GlanceError",
    "GlanceUnreachable",
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
    "InvalidResponse",
    "NewOrigin",
    "NotFound",
    "NotInstanceAware",
    "Origin",
    "PayloadTooLarge",
    "PolicyEmpty",
    "PolicyInvalid",
    "Relation",
    "RelationsClient",
    "RemoteImage",
    "ServiceUnavailable",
    "StoreNotOffered",
    "Stores",
    "TupleHeaders",
    "Unauthorized",
    "UploadInvalid",
    "Usage",
    "carry_tuple",
    "for_instance",
    "image_adapter",
    "in_this_context",
]
