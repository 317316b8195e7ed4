"""The filter in front of the registry.

Headers in: ``X-Installation-UUID`` and ``X-Instance-ID``, both or neither; ``X-Relation-Kind`` and
``X-Relation-Label``. They are removed from every request before the registry sees it. Headers out:
``X-Relation-Recorded`` on the answer to a request that recorded a relation,
``X-Relation-Filters-Applied`` on an image list that was restricted to an instance.

Place in the pipeline: after ``authtoken`` and ``context``, right before ``rootapp``. The identity
is read from the headers that keystonemiddleware sets; without it anybody could set them.
"""

from related_images.middleware.filter import InstanceAwareMiddleware, filter_factory

__all__ = ["InstanceAwareMiddleware", "filter_factory"]
