"""The relation of an image that a stack describes, and what the stack itself reported of it."""

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
"""The key of the resource's data that holds what the stack reported."""


class RelationTaken(ClientError):
    """Somebody else recorded the relation with another label."""

    code = "heat.relation-taken"
    title = "The relation is recorded with another label"


@dataclass(frozen=True)
class Report:
    """A relation that the stack reported.

    :ivar recorded_at: when the relation was recorded to which it attached the image; ``None`` if
        it created the image for the instance
    """

    relation: WantedRelation
    recorded_at: datetime | None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Report":
        instance = InstanceRef(said["installation_uuid"], said["instance_id"])
        at = said["recorded_at"]
        return cls(
            WantedRelation(instance, said["kind"], said["label"]),
            None if at is None else validation.parse_time("recorded_at", at),
        )

    def as_json(self) -> dict[str, Any]:
        instance, at = self.relation.instance, self.recorded_at
        return {
            "installation_uuid": instance.installation_uuid,
            "instance_id": instance.instance_id,
            "kind": self.relation.kind,
            "label": self.relation.label,
            "recorded_at": None if at is None else at.isoformat(),
        }


class ImageRelation:
    """Keeps the relation of the image of one resource as its template says.

    It takes back only what the stack reported: what was there before stays, and what others
    report too.

    :param resource: Heat's, which has the id of the image and keeps the reports in its data
    :param adapter: the user's, for Glance
    :param vouch: whether Heat may record the relation of the image for the user
        (:func:`server_check.project_of_instance`); there is no image yet where it is to be created
    """

    def __init__(
        self,
        resource: Any,
        adapter: Adapter,
        vouch: Callable[[WantedRelation, bool], str | None],
    ) -> None:
        self._resource = resource
        self._client = RelationsClient(adapter)
        self._recorder = Recorder(adapter)
        self._vouch = vouch

    def create(self, wanted: WantedRelation, body: Mapping[str, Any]) -> Image:
        """Create the image of the resource for the instance."""
        instance = wanted.instance

        def deed(adapter: Adapter, _project: str | None) -> Image:
            images = InstanceAwareImageService(adapter, instance.installation_uuid)
            return images.create(
                instance.instance_id, kind=wanted.kind, label=wanted.label, properties=body
            )

        image = self._recorder.record(deed, lambda: self._vouch(wanted, False))
        self._remember(Report(wanted, None))
        return image

    def bring_in_line(self, wanted: WantedRelation | None) -> None:
        """Report what is wanted, and take back whatever else the stack reported."""
        if wanted:
            self._attach(wanted)
        for report in self._reports():
            if wanted is None or _key(report.relation) != _key(wanted):
                self._take_back(report)

    def fault(self, wanted: WantedRelation | None) -> str | None:
        """What is not as it is wanted."""
        if wanted is None:
            return None
        present = self.present(wanted)
        named = f"the {wanted.kind} relation with the instance {wanted.instance.instance_id}"
        if present is None:
            return f"{named} is gone"
        if wanted.label not in (None, present.label):
            return f"{named} has the label {present.label} instead of {wanted.label}"
        return None

    def present(self, wanted: WantedRelation) -> Relation | None:
        """The relation as it is recorded, if it is."""
        found = self._client.relations(
            installation_uuid=wanted.instance.installation_uuid,
            instance_id=wanted.instance.instance_id,
            image_id=self._image_id,
            kind=wanted.kind,
        )
        return next(found, None)

    def _attach(self, wanted: WantedRelation) -> None:
        present, report = self.present(wanted), self._report_of(wanted)
        if report and not _is_of(report, present):
            self._forget(report)  # somebody removed the relation since
            report = None
        if report and present:
            if wanted.label == report.relation.label and wanted.label in (None, present.label):
                return
            # reported once more, it is known that it may be, before anything is taken back
            again = self._record(wanted, present.label)
            self._take_back(report)
            if self._take_back(again):
                present = None
        if present is None:
            self._record(wanted, wanted.label)
        else:
            self._join(wanted, present, report)

    def _join(self, wanted: WantedRelation, present: Relation, report: Report | None) -> None:
        """Report a relation that others report; its label is theirs."""
        is_other = wanted.label not in (None, present.label)
        if report or not is_other:
            self._record(replace(wanted, label=None) if is_other else wanted, present.label)
        if is_other:
            raise RelationTaken(
                f"the image {self._image_id} is recorded as a {wanted.kind} of the instance "
                f"{wanted.instance.instance_id} with the label {present.label}, not only by this "
                f"stack ({present.source}); it stays so; give that label, or none"
            )

    def _record(self, wanted: WantedRelation, label: str | None) -> Report:
        def deed(adapter: Adapter, project: str | None) -> Relation:
            return RelationsClient(adapter).attach(
                wanted.instance, self._image_id, wanted.kind, label, project
            )

        recorded = self._recorder.record(deed, lambda: self._vouch(wanted, True))
        report = Report(wanted, recorded.created_at)
        self._remember(report)
        return report

    def _take_back(self, report: Report) -> bool:
        """Whether the relation is gone: nobody else reports it."""
        relation = report.relation

        def deed(adapter: Adapter, _project: str | None) -> bool:
            return RelationsClient(adapter).take_back(
                relation.instance, self._image_id, relation.kind, report.recorded_at
            )

        # forgotten first: taken back twice, it would be taken from somebody else
        self._forget(report)
        try:
            return self._recorder.record(deed, lambda: None)
        except NotFound:
            return True
        except ClientError as error:
            if not getattr(error, "doubtful", False):
                self._remember(report)
            raise

    def _report_of(self, wanted: WantedRelation) -> Report | None:
        same = (it for it in self._reports() if _key(it.relation) == _key(wanted))
        return next(same, None)

    def _reports(self) -> list[Report]:
        said = json.loads(self._resource.data().get(REPORTS, "[]"))
        return [Report.read(one) for one in said]

    def _remember(self, report: Report) -> None:
        self._keep([*self._reports(), report])

    def _forget(self, report: Report) -> None:
        self._keep([one for one in self._reports() if one != report])

    def _keep(self, reports: list[Report]) -> None:
        self._resource.data_set(REPORTS, json.dumps([one.as_json() for one in reports]))

    @property
    def _image_id(self) -> str:
        return str(self._resource.resource_id)


def _is_of(report: Report, present: Relation | None) -> bool:
    """Whether the report is of the relation that is there."""
    return present is not None and report.recorded_at in (None, present.created_at)


def _key(relation: WantedRelation) -> tuple[Any, str]:
    return relation.instance, relation.kind
