"""The WSGI filter in front of Glance.

Request headers: ``X-Installation-UUID`` and ``X-Instance-ID``, both or neither; optionally
``X-Relation-Kind``, ``X-Relation-Label``, ``X-Instance-Project-ID`` and ``X-Relation-Force``. The
filter removes them from every request before Glance sees it.

Response headers: ``X-Relation-Recorded`` on the response to a request that recorded a relation,
``X-Relation-Filters-Applied`` on an image list that was restricted to a server.

In the pipeline, the filter comes after ``authtoken`` and ``context``, right before ``rootapp``. It
trusts the identity headers that keystonemiddleware sets. Without keystonemiddleware in front of the
filter, any client can set them.
"""

from related_images.middleware.filter import InstanceAwareMiddleware, filter_factory

__all__ = ["InstanceAwareMiddleware", "filter_factory"]
