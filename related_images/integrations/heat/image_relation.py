"""Update the relation of an image to its template, and store the reports of the stack."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keystoneauth1.adapter import Adapter

from related_images import validation
from related_images.client import (
    Image,
    InstanceAwareImageService,
    NotFound,
    Relation,
    RelationsClient,
)
from related_images.client.errors import ClientError
from related_images.integrations.heat.heat_credentials import Recorder
from related_images.integrations.heat.validation import WantedRelation
from related_images.model import InstanceRef

REPORTS: Final = "reports"
"""The key of the resource data with the reports of the stack."""


class RelationTaken(ClientError):
    """The relation is recorded with another label, not only by this stack."""

    code = "heat.relation-taken"
    title = "The relation is recorded with another label"


@dataclass(frozen=True)
class Report:
    """A relation that the stack reported.

    :ivar recorded_at: the creation time of the relation; ``None`` if the stack created the image
        with the instance headers
    """

    relation: WantedRelation
    recorded_at: datetime | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Report":
        """Return the report from the result of :meth:`to_json`.

        :param values: the JSON object
        """
        instance = InstanceRef(values["installation_uuid"], values["instance_id"])
        at = values["recorded_at"]
        return cls(
            WantedRelation(instance, values["kind"], values["label"]),
            None if at is None else validation.parse_time("recorded_at", at),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        instance, at = self.relation.instance, self.recorded_at
        return {
            "installation_uuid": instance.installation_uuid,
            "instance_id": instance.instance_id,
            "kind": self.relation.kind,
            "label": self.relation.label,
            "recorded_at": None if at is None else at.isoformat(),
        }


class ImageRelation:
    """Record and roll back the relation of the image of one resource.

    It rolls back only relations that the stack reported. A relation stays if it existed before, or
    if others report it as well.

    :param resource: a Heat resource, which has the image ID and stores the reports in its data
    :param adapter: the adapter of the stack's user for Glance
    :param authorize: raises unless Heat may record the relation for the user
        (:func:`server_check.authorize`); its second argument is ``True`` if the image exists
    """

    def __init__(
        self,
        resource: Any,
        adapter: Adapter,
        authorize: Callable[[WantedRelation, bool], str | None],
    ) -> None:
        self._resource = resource
        self._client = RelationsClient(adapter)
        self._recorder = Recorder(adapter)
        self._authorize = authorize

    def create(self, wanted: WantedRelation, body: Mapping[str, Any]) -> Image:
        """Create the image of the resource with the instance headers.

        :param wanted: the relation
        :param body: the attributes of the image
        :returns: the image
        :raises RecordingRefused: if recording the relation is refused; the image is not created
        """
        instance = wanted.instance

        def send(adapter: Adapter, _project: str | None) -> Image:
            images = InstanceAwareImageService(adapter, instance.installation_uuid)
            return images.create(
                instance.instance_id, kind=wanted.kind, label=wanted.label, properties=body
            )

        image = self._recorder.record(send, lambda: self._authorize(wanted, False))
        self._add_report(Report(wanted, None))
        return image

    def update(self, wanted: WantedRelation | None) -> None:
        """Record a relation, and roll back the other relations that the stack reported.

        :param wanted: the relation in the template
        :raises RecordingRefused: if recording the relation is refused
        :raises RelationTaken: if it is recorded with another label, not only by this stack
        """
        if wanted:
            self._attach(wanted)
        for report in self._reports():
            if wanted is None or _key(report.relation) != _key(wanted):
                self._roll_back(report)

    def difference(self, wanted: WantedRelation | None) -> str | None:
        """Return how the recorded relation differs from the template; ``None`` if it does not.

        :param wanted: the relation in the template
        """
        if wanted is None:
            return None
        recorded = self.recorded(wanted)
        subject = f"the {wanted.kind} relation with the server {wanted.instance.instance_id}"
        if recorded is None:
            return f"{subject} is missing"
        if wanted.label not in (None, recorded.label):
            return f"{subject} has the label {recorded.label} instead of {wanted.label}"
        return None

    def recorded(self, wanted: WantedRelation) -> Relation | None:
        """Return the recorded relation with the same server and kind, whatever its label.

        :param wanted: the relation in the template
        """
        matches = self._client.relations(
            installation_uuid=wanted.instance.installation_uuid,
            resource_type=wanted.instance.resource_type,
            instance_id=wanted.instance.instance_id,
            image_id=self._image_id,
            kind=wanted.kind,
        )
        return next(matches, None)

    def _attach(self, wanted: WantedRelation) -> None:
        recorded, report = self.recorded(wanted), self._report_of(wanted)
        if report and not _is_of(report, recorded):
            self._remove_report(report)  # the relation was deleted in the meantime
            report = None
        if report and recorded:
            if wanted.label == report.relation.label and wanted.label in (None, recorded.label):
                return
            # A second report proves that the stack may record the relation, before the rollback
            # of both removes it.
            second = self._record(wanted, recorded.label)
            self._roll_back(report)
            if self._roll_back(second):
                recorded = None
        if recorded is None:
            self._record(wanted, wanted.label)
        else:
            self._join(wanted, recorded, report)

    def _join(self, wanted: WantedRelation, recorded: Relation, report: Report | None) -> None:
        """Report a relation that others report as well, with their label."""
        is_other = wanted.label not in (None, recorded.label)
        if report or not is_other:
            self._record(replace(wanted, label=None) if is_other else wanted, recorded.label)
        if is_other:
            raise RelationTaken(
                f"the image {self._image_id} is recorded as a {wanted.kind} of the server "
                f"{wanted.instance.instance_id} with the label {recorded.label}, not only by this "
                f"stack ({recorded.source}); the label is not changed; use that label, or none"
            )

    def _record(self, wanted: WantedRelation, label: str | None) -> Report:
        def send(adapter: Adapter, project: str | None) -> Relation:
            return RelationsClient(adapter).attach(
                wanted.instance, self._image_id, wanted.kind, label, project
            )

        recorded = self._recorder.record(send, lambda: self._authorize(wanted, True))
        report = Report(wanted, recorded.created_at)
        self._add_report(report)
        return report

    def _roll_back(self, report: Report) -> bool:
        """Roll back one report; return True if the relation is removed, as nobody else reports it.

        :raises ClientError: if that fails; the report stays unless Glance may have processed it
        """
        relation = report.relation

        def send(adapter: Adapter, _project: str | None) -> bool:
            return RelationsClient(adapter).roll_back(
                relation.instance, self._image_id, relation.kind, report.recorded_at
            )

        # removed first, because a second rollback would remove the report of another reporter
        self._remove_report(report)
        try:
            return self._recorder.record(send, lambda: None)
        except NotFound:
            return True
        except ClientError as error:
            if not getattr(error, "doubtful", False):
                self._add_report(report)
            raise

    def _report_of(self, wanted: WantedRelation) -> Report | None:
        matches = (one for one in self._reports() if _key(one.relation) == _key(wanted))
        return next(matches, None)

    def _reports(self) -> list[Report]:
        reports = json.loads(self._resource.data().get(REPORTS, "[]"))
        return [Report.from_json(one) for one in reports]

    def _add_report(self, report: Report) -> None:
        self._store([*self._reports(), report])

    def _remove_report(self, report: Report) -> None:
        self._store([one for one in self._reports() if one != report])

    def _store(self, reports: list[Report]) -> None:
        self._resource.data_set(REPORTS, json.dumps([one.to_json() for one in reports]))

    @property
    def _image_id(self) -> str:
        return str(self._resource.resource_id)


def _is_of(report: Report, recorded: Relation | None) -> bool:
    """Return True if the report is about the recorded relation, not about a previous one."""
    return recorded is not None and report.recorded_at in (None, recorded.created_at)


def _key(relation: WantedRelation) -> tuple[Any, str]:
    return relation.instance, relation.kind
