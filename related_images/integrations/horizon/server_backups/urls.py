"""The URLs of the panel."""

from django.urls import re_path

from related_images.integrations.horizon.server_backups import views

urlpatterns = [
    re_path(r"^$", views.IndexView.as_view(), name="index"),
    re_path(r"^(?P<server_id>[0-9A-Za-z-]+)/back-up/$", views.BackUpView.as_view(), name="back_up"),
]
