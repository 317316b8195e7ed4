"""What the witnesses of an installation covered, and the use of images, with the real Glance."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from related_images.db import Database, witnesses
from related_images.model import WITNESSES
from related_images.validation import format_time
from tests.filters import filtering, migrated, new_uuid
from tests.functional.cloud import ADMIN, SERVICE_TOKEN, Cloud, new_server
from tests.functional.test_lineage import a_public_image, start
from tests.functional.test_usage import end, shared

MINUTE = timedelta(minutes=1)


@dataclass
class Nova:
    """An installation that expects the witness ``nova-api``."""

    cloud: Cloud
    database: Database
    uuid: str = field(default_factory=new_uuid)

    def register(self) -> None:
        body = {"uuid": self.uuid, "name": "nova", "witnesses": ["nova-api"]}
        answer = self.cloud.call("POST", "/v2/installations", ADMIN, body)
        assert answer.status == 201
        assert answer.json["witnesses"] == ["nova-api"]

    def heartbeat(self, begin: datetime, end: datetime, process: str = "p") -> Any:
        body = {"installation_uuid": self.uuid, "witness": "nova-api", "process": process}
        body |= {"from": format_time(begin) or "", "until": format_time(end) or ""}
        answer = self.cloud.call("POST", "/v2/witnesses", ADMIN | SERVICE_TOKEN, body)
        assert answer.status == 200, answer.body
        return answer.json


@pytest.fixture
def nova(cloud: Cloud, tmp_path: Path) -> Iterator[Nova]:
    store = migrated(tmp_path)
    made = Cloud(filtering(cloud.bare, store, guard="in-use"), cloud.bare)
    database = Database(store, 20)
    yield Nova(made, database)
    database.close()


def usage(nova: Nova, image_id: str, headers: dict[str, str] = ADMIN) -> Any:
    answer = nova.cloud.call("GET", f"/v2/usages?image_ids={image_id}", headers)
    assert answer.status == 200, answer.body
    return answer.json["usages"][0]


def gaps(nova: Nova, image_id: str) -> list[tuple[str | None, str | None]]:
    return [(gap["from"], gap["until"]) for gap in usage(nova, image_id)["gaps"]]


def created_at(nova: Nova, image_id: str) -> datetime:
    image = nova.cloud.call("GET", f"/v2/images/{image_id}", ADMIN).json
    return datetime.fromisoformat(image["created_at"])


def test_unused_is_stated_only_if_the_life_of_the_image_is_covered(nova: Nova) -> None:
    image_id = a_public_image(nova.cloud)
    made_at = created_at(nova, image_id)
    assert usage(nova, image_id)["state"] == "unused"
    nova.register()
    silent = usage(nova, image_id)
    assert (silent["state"], silent["more_gaps"]) == ("unknown", 0)
    always = {"installation_uuid": nova.uuid, "witness": "nova-api", "until": None}
    assert silent["gaps"] == [{**always, "from": format_time(made_at)}]
    now = datetime.now(UTC)
    nova.heartbeat(now, now)
    assert gaps(nova, image_id) == [(format_time(made_at), format_time(now))]
    nova.heartbeat(made_at, now)
    covered = usage(nova, image_id)
    assert (covered["state"], covered["gaps"]) == ("unused", [])
    server = new_server()
    start(nova.cloud, server, image_id)
    assert usage(nova, image_id)["state"] == "used"


def test_a_loss_of_one_process_is_a_gap_until_a_comparison(nova: Nova) -> None:
    image_id = a_public_image(nova.cloud)
    nova.register()
    now, made_at = datetime.now(UTC), created_at(nova, image_id)
    last, next = (made_at + timedelta(microseconds=it) for it in (1, 2))
    nova.heartbeat(made_at - MINUTE, now, "other")
    nova.heartbeat(made_at - MINUTE, last)
    assert nova.heartbeat(next, now)["from"] == format_time(next)
    assert gaps(nova, image_id) == [(format_time(last), format_time(next))]
    witnesses.close_gaps(nova.database, nova.uuid, WITNESSES, now)
    assert usage(nova, image_id)["state"] == "unused"


def copy(source: str, target: str) -> None:
    """Copy a SQLite database into another file, also while processes use it."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def test_what_a_restored_copy_lacks_is_unknown_until_a_comparison(nova: Nova) -> None:
    """The process of nova-api continues its interval over the time that the copy lacks."""
    image_id, server = a_public_image(nova.cloud), new_server()
    nova.register()
    made_at = created_at(nova, image_id)
    nova.heartbeat(made_at - MINUTE, made_at)
    file = str(nova.database._url.database)
    copy(file, f"{file}.copy")
    start(nova.cloud, server, image_id)
    assert usage(nova, image_id)["state"] == "used"

    copy(f"{file}.copy", file)
    (gap,) = witnesses.lose_since(nova.database, made_at)
    now = datetime.now(UTC)
    nova.heartbeat(made_at - MINUTE, now)
    found = usage(nova, image_id)
    assert found["state"] == "unknown"
    assert gaps(nova, image_id) == [(format_time(made_at), format_time(gap.until))]
    witnesses.close_gaps(nova.database, nova.uuid, WITNESSES, now)
    assert usage(nova, image_id)["state"] == "unused"


def test_five_gaps_are_listed_and_the_others_counted(nova: Nova) -> None:
    image_id = a_public_image(nova.cloud)
    nova.register()
    made_at = created_at(nova, image_id)
    for number in range(8):
        begin = made_at + timedelta(milliseconds=10 * number)
        nova.heartbeat(begin, begin + timedelta(milliseconds=5))
    found = usage(nova, image_id)
    assert (len(found["gaps"]), found["more_gaps"]) == (5, 2)
    assert [gap["from"] for gap in found["gaps"]] == sorted(gap["from"] for gap in found["gaps"])


def test_the_use_of_an_image_that_glance_does_not_show_depends_on_every_gap(nova: Nova) -> None:
    nova.register()
    now = datetime.now(UTC)
    nova.heartbeat(now - MINUTE, now)
    found = usage(nova, new_uuid())
    assert (found["state"], found["gaps"][0]["from"]) == ("unknown", None)
    witnesses.close_gaps(nova.database, nova.uuid, WITNESSES, now)
    assert usage(nova, new_uuid())["state"] == "unused"


def test_the_owner_of_an_image_gets_the_state(nova: Nova) -> None:
    mine, theirs = new_server(), new_server()
    image_id = shared(nova.cloud, mine, theirs)
    nova.register()
    assert usage(nova, image_id, mine.user)["state"] == "unknown"
    now = datetime.now(UTC)
    nova.heartbeat(created_at(nova, image_id), now)
    assert usage(nova, image_id, mine.user)["state"] == "unused"
    start(nova.cloud, theirs, image_id)
    assert usage(nova, image_id, mine.user)["state"] == "used"
    end(nova.cloud, theirs)
    assert usage(nova, image_id, mine.user)["state"] == "unused"


def test_the_refusal_to_delete_an_image_names_the_gap(nova: Nova) -> None:
    image_id, server = a_public_image(nova.cloud), new_server()
    start(nova.cloud, server, image_id)

    def refused() -> str:
        answer = nova.cloud.call("DELETE", f"/v2/images/{image_id}", ADMIN)
        assert (answer.status, answer.json["error"]["code"]) == (409, "image.in-use")
        return str(answer.json["error"]["message"])

    assert "others may use it" not in refused()
    nova.register()
    made_at = created_at(nova, image_id)
    known = f"others may use it too: nothing is known from nova-api of installation {nova.uuid}"
    assert f"{known} from {format_time(made_at)} until now" in refused()
    nova.heartbeat(made_at, datetime.now(UTC))
    assert "others may use it" not in refused()


def test_the_covered_times_are_shown_to_every_caller(nova: Nova) -> None:
    now = datetime.now(UTC)
    nova.heartbeat(now - 9 * MINUTE, now - 8 * MINUTE)
    nova.heartbeat(now - 2 * MINUTE, now, "other")
    info = nova.cloud.call("GET", "/v2/info/relations", new_server().user).json
    times = [(now - 9 * MINUTE, now - 8 * MINUTE), (now - 2 * MINUTE, now)]
    intervals = [dict(zip(("from", "until"), map(format_time, it), strict=True)) for it in times]
    assert info["coverage"] == [
        {"installation_uuid": nova.uuid, "witness": "nova-api", "intervals": intervals}
    ]


def test_another_registration_keeps_the_covered_times(nova: Nova) -> None:
    image_id = a_public_image(nova.cloud)
    nova.register()
    nova.heartbeat(created_at(nova, image_id), datetime.now(UTC))
    path = f"/v2/installations/{nova.uuid}"
    body = {"uuid": nova.uuid, "name": "nova", "witnesses": []}
    conflict = nova.cloud.call("POST", "/v2/installations", ADMIN, body)
    assert (conflict.status, conflict.json["error"]["code"]) == (409, "installation.conflict")
    assert nova.cloud.call("DELETE", path, ADMIN).status == 204
    assert usage(nova, image_id)["gaps"] == []
    nova.register()
    assert usage(nova, image_id)["state"] == "unused"
