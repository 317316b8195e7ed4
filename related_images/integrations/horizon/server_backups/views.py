"""The pages of the panel, and the form that backs up a server."""

from datetime import UTC, datetime
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from horizon import exceptions, forms, tabs

from related_images import validation
from related_images.client import ClientError
from related_images.client.backups import Server, Servers
from related_images.errors import BadInput
from related_images.integrations.horizon import pages, project_backups, services
from related_images.integrations.horizon.faults import explained, sentence
from related_images.integrations.horizon.volume_snapshots import ProjectSnapshots


class WithBackupsTab(tabs.Tab):  # type: ignore[misc]
    """The servers with backups."""

    name = _("Servers with backups")
    slug = "with"
    template_name = "related_images/project_backups.html"
    preload = False

    def get_context_data(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        label = request.GET.get("label") or None
        return {"label": label, **explained(lambda: {"found": self._load(request, label)})}

    def _load(self, request: Any, label: str | None) -> project_backups.ProjectBackups:
        number = request.GET.get("page", "")
        return project_backups.load(
            services.inventory(request),
            services.service(request, services.COMPUTE),
            ProjectSnapshots(request),
            request.user.project_id,
            validation.label(label) if label else None,
            max(int(number), 1) if number.isdecimal() and len(number) < 6 else 1,
            pages.size(request),
        )


class WithoutBackupTab(tabs.Tab):  # type: ignore[misc]
    """The servers without a backup."""

    name = _("Servers without a backup")
    slug = "without"
    template_name = "related_images/servers_without_backup.html"
    preload = False

    def get_context_data(self, request: Any) -> dict[str, Any]:
        """Return what the template shows."""
        load = lambda: {  # noqa: E731
            "found": project_backups.without_backup(
                services.inventory(request),
                services.service(request, services.COMPUTE),
                request.user.project_id,
                request.GET.get("marker"),
            )
        }
        return {"tab": self.get_id(), **explained(load)}


class BackupTabs(tabs.TabGroup):  # type: ignore[misc]
    """The tabs of the panel."""

    slug = "server_backups"
    tabs = (WithBackupsTab, WithoutBackupTab)


class IndexView(tabs.TabView):  # type: ignore[misc]
    """The page of the panel."""

    tab_group_class = BackupTabs
    template_name = "related_images/panel.html"
    page_title = _("Server Backups")


class BackUpForm(forms.SelfHandlingForm):  # type: ignore[misc]
    """The form that backs up a server."""

    label = forms.CharField(
        label=_("Label"),
        initial="manual",
        max_length=64,
        help_text=_("A word such as daily. Retention rules apply to each label separately."),
    )

    def clean_label(self) -> str:
        """Return the label if it is well formed."""
        try:
            return validation.label(self.cleaned_data["label"])
        except BadInput as error:
            raise forms.ValidationError(
                _("A label has 1 to 64 of the characters A-Z a-z 0-9 . _ : -")
            ) from error

    def handle(self, request: Any, data: dict[str, Any]) -> bool:
        """Ask Nova for the backup; return whether it began."""
        server_id = self.initial["server_id"]
        try:
            shown = services.service(request, services.COMPUTE).request(
                "GET", f"/servers/{server_id}"
            )
            server = Server.of(shown["server"])
            if server.obstacle:
                self.api_error(_("The server cannot be backed up now: %s") % server.obstacle)
                return False
            nova = services.adapter(request, services.COMPUTE)
            Servers(nova).back_up(server, data["label"], datetime.now(UTC))
        except (ClientError, exceptions.ServiceCatalogException) as error:
            self.api_error(sentence(error))
            return False
        return True


class BackUpView(forms.ModalFormView):  # type: ignore[misc]
    """The dialog that backs up a server."""

    form_class = BackUpForm
    modal_id = "back_up_modal"
    page_title = modal_header = _("Back Up Server")
    submit_label = _("Back Up Now")
    template_name = "related_images/back_up.html"

    def get_initial(self) -> dict[str, Any]:
        """Return the server that is backed up."""
        return {"server_id": self.kwargs["server_id"]}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the template shows."""
        context: dict[str, Any] = super().get_context_data(**kwargs)
        ids = [self.kwargs["server_id"]]
        context["submit_url"] = reverse("horizon:project:server_backups:back_up", args=ids)
        context["cancel_url"] = self.get_success_url()
        return context

    def get_success_url(self) -> str:
        """Return the tab of the server with its images."""
        return pages.server_tab(self.kwargs["server_id"])
