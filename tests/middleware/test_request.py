"""How requests are classified, and the values that are read from them."""

from typing import Any

import pytest

from related_images.middleware import request
from related_images.middleware.environ import parameters
from related_images.middleware.request import (
    Creation,
    Deletion,
    Listing,
    Malformed,
    Rotation,
    classify,
)
from related_images.middleware.routing import Route
from related_images.model import InstanceRef
from related_images.protocol.headers import Assertion
from related_images.protocol.image_list import Restriction
from tests import wsgi
from tests.filters import OURS, instance_headers

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TUPLE = instance_headers(UUID, "i", kind="backup")
ASSERTION = Assertion(InstanceRef(UUID, "i"), "backup")
RESTRICTION = Restriction(InstanceRef(UUID, "i"), kind="backup")
ASKED = f"installation_uuid={UUID}&instance_id=i"
CLAIMS = "image_type=backup&backup_type=daily&instance_uuid=i"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def asked(method: str, path: str, sent_headers: dict[str, str] | None = None) -> Any:
    environ = wsgi.environ_of(method, path, sent_headers)
    found = classify(environ)
    assert environ.keys().isdisjoint(OURS)
    return found


@pytest.mark.parametrize(
    ("method", "path", "sent_headers", "kind"),
    [
        ("POST", "/v2/images", TUPLE, Creation),
        ("GET", "/v2/images", TUPLE, Listing),
        ("GET", f"/v2/images?{ASKED}", {}, Listing),
        ("GET", f"/v2/images?%69nstallation%5Fuuid={UUID}&instance_id=i", {}, Listing),
        ("GET", "/v2/images?relation_kind=boot", {}, Listing),
        ("GET", "/v2/images?name=n&relation%5Fin_use=false", {}, Listing),
        ("GET", "/v2/images?relation_colour=red", {}, Malformed),
        ("GET", "/v2/images?instance_id=i&relation_kind=boot", {}, Malformed),
        ("GET", "/v2/images?relation_in_use=true", {"X-Relation-Kind": "boot"}, Malformed),
        ("POST", "/v2/images?relation_kind=boot", {}, type(None)),
        ("GET", "/v2/images?name=relation_kind", {}, type(None)),
        ("GET", "/v2/images?x_relation_kind=boot", {}, type(None)),
        ("GET", f"/v2/images?{CLAIMS}", {}, Rotation),
        ("GET", f"/v2/images?{CLAIMS.replace('instance_', '%69nstance%5F')}", {}, Rotation),
        ("GET", f"/v2/images?{CLAIMS}&limit=1;marker=x", {}, Rotation),
        ("DELETE", f"/v2/images/{UUID}", {}, Deletion),
        ("DELETE", f"/v2/images/{UUID}%0A", TUPLE, Deletion),
        ("GET", f"/v2/images/{UUID}?_method=delete", {}, Deletion),
        ("POST", f"/v2/images/{UUID}", FORM, Deletion),
        ("GET", "/v2/relations", {}, Route),
        ("PUT", "/v2.1//relations", TUPLE, Route),
        ("POST", "/v2/images?_method=GET", TUPLE, Malformed),
        ("GET", "/v2/images?instance_id=i", {"X-Instance-ID": "j"}, Malformed),
        ("GET", "/elsewhere", {"X-Instance-ID": "j"}, Malformed),
        ("GET", "/v2/relations", {"X-Relation-Kind": "backup"}, Malformed),
        ("GET", "/v2/images", {}, type(None)),
        ("GET", "/v2/images?instance_id=i", {}, type(None)),
        ("GET", f"/v2/images?{CLAIMS}&name=n", {}, type(None)),
        ("GET", f"/v2/images?{CLAIMS}&instance_uuid=i", {}, type(None)),
        ("HEAD", f"/v2/images?{CLAIMS}", {}, type(None)),
        ("PUT", "/v2/images", TUPLE, type(None)),
        ("GET", f"/v2/images/{UUID}", TUPLE, type(None)),
        ("DELETE", f"/v2/images/{UUID}/file", {}, type(None)),
        ("POST", f"/v2/images/{UUID}", {}, type(None)),
        ("GET", "/elsewhere", TUPLE, type(None)),
    ],
)
def test_request_is_classified(
    method: str, path: str, sent_headers: dict[str, str], kind: type[object]
) -> None:
    assert type(asked(method, path, sent_headers)) is kind


def test_classification_has_the_parsed_values() -> None:
    assert asked("POST", "/v2/images", TUPLE) == Creation(ASSERTION)
    assert asked("GET", "/v2/images?limit=1", TUPLE) == Listing(RESTRICTION, parameters("limit=1"))
    assert asked("GET", f"/v2/images?{CLAIMS}") == Rotation("i", "daily", parameters(CLAIMS))
    forced = {"X-Relation-Force": "True"}
    assert asked("DELETE", f"/v2/images/{UUID}", forced) == Deletion(UUID, True)
    route = asked("GET", f"/v2/images/{UUID}/relations")
    assert route.ids == {"image_id": UUID}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {}),
        ("installation_uuid=a", {"installation_uuid": "a"}),
        ("x=1;installation_uuid=a", {"installation_uuid": "a"}),
        ("%69nstance_id=a+b", {"instance_id": "a b"}),
        ("instance_id=a&instance_id=b", {"instance_id": "a,b"}),
        ("instance_id", {"instance_id": ""}),
        ("INSTANCE_ID=a&instance_id[]=a", {}),
        (
            "relation_label=a&%72elation_source=b&label=c",
            {"relation_label": "a", "relation_source": "b"},
        ),
    ],
)
def test_relation_parameters_are_found_in_every_encoding(query: str, found: dict[str, str]) -> None:
    assert request.relation_parameters(parameters(query)) == found
