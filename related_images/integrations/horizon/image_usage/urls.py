"""The URLs of the panel."""

from django.urls import re_path

from related_images.integrations.horizon.image_usage import views

urlpatterns = [re_path(r"^$", views.IndexView.as_view(), name="index")]
