"""The policy: its rules, its defaults from the role options, and a policy file."""

import itertools
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_policy import _checks

from related_images import config
from related_images.errors import ConfigurationError
from related_images.middleware import InstanceAwareMiddleware, policy, routing
from related_images.middleware.policy import Attributes, Policy, Rule
from related_images.protocol import paths
from tests import wsgi
from tests.filters import StubGlance, instance_headers, new_uuid
from tests.middleware.conftest import MakeFilter

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "samples" / "policy.yaml"
ADMIN = wsgi.identity("root", "admins", "admin", "service")
NAMES = {rule.name: rule for rule in policy.RULES}
MOST_CHECKS = 20
"""The most checks of oslo.policy that a rule may evaluate, if each refers to two roles."""

OPERATIONS = [
    (path, method, operation)
    for path, methods in routing.ROUTES.items()
    for method, operation in methods.items()
]
IDS = {
    "image_id": "2ee64992-9504-450e-b838-7a6ce8f56e6f",
    "installation_uuid": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "uuid": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "instance_id": "inst-1",
    "kind": "boot",
    "name": "stack",
}
QUERIES = {paths.USAGES: f"?image_ids={IDS['image_id']}", paths.ORIGIN: "?since=2026-01-01"}

Write = Callable[[object], str]


def dated(path: Path, text: str, age: float) -> Path:
    """Write a file that was changed ``age`` seconds ago, or will be if it is negative."""
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a policy file and returns its path."""
    path = tmp_path / "policy.yaml"
    times = itertools.count(1)

    def write(rules: object) -> str:
        text = rules if isinstance(rules, str) else yaml.safe_dump(rules)
        # a file that was written a moment ago is not read
        return str(dated(path, text, 10 + next(times)))

    return write


def policy_of(path: str = "", **options: str) -> Policy:
    given = {"connection": "sqlite://", "policy_file": path} | options
    return Policy(config.load("filter:related-images", given))


def permits(it: Policy, rule: Rule, **credentials: Any) -> bool:
    named = ("user_id", "project_id")
    own = tuple((name, credentials[name]) for name in named if name in credentials)
    return it.permits(rule, attributes(credentials), own)


def attributes(named: dict[str, Any]) -> Attributes:
    """Return credentials as the policy takes them."""
    return tuple(
        (name, ",".join(value) if isinstance(value, list) else value)
        for name, value in named.items()
    )


def called(it: InstanceAwareMiddleware, path: str, method: str, who: dict[str, str]) -> Any:
    query = "" if method == "POST" else QUERIES.get(path, "")
    url = paths.API + path.format(**IDS) + query
    body: dict[str, object] | None = {} if method == "POST" else None
    return wsgi.call(it, method, url, who, body)


def refused(answer: Any) -> bool:
    return answer.status == 403 and "of the policy file" in answer.json["error"]["message"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_the_rule_of_each_route_closes_it(
    make_filter: MakeFilter, write: Write, path: str, method: str, operation: Any
) -> None:
    closed = make_filter(StubGlance(), policy_file=write({operation.rule.name: "!"}))
    assert refused(called(closed, path, method, ADMIN))


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_no_other_rule_closes_a_route(
    make_filter: MakeFilter, write: Write, path: str, method: str, operation: Any
) -> None:
    others = {rule.name: "!" for rule in policy.RULES if rule != operation.rule}
    others[operation.rule.name] = "role:admin"
    assert not refused(
        called(make_filter(StubGlance(), policy_file=write(others)), path, method, ADMIN)
    )


def test_the_rule_of_recording_closes_it(make_filter: MakeFilter, write: Write) -> None:
    glance = StubGlance()
    closed = make_filter(glance, policy_file=write({policy.CREATE_IMAGE.name: "!"}))
    who = ADMIN | instance_headers(new_uuid(), "inst-1")
    answer = wsgi.call(closed, "POST", "/v2/images", who, {})
    assert refused(answer)
    assert answer.json["error"]["code"] == "relation.forbidden"
    assert glance.created == []
    assert wsgi.call(closed, "POST", "/v2/images", ADMIN, {}).status == 201


def test_every_rule_has_a_use() -> None:
    used = {operation.rule for _, _, operation in OPERATIONS} | {policy.CREATE_IMAGE}
    aliases = {policy.RECORDER, policy.ADMINISTRATOR, policy.REMOVER, policy.READER}
    assert used | aliases == set(policy.RULES)


def test_readers_of_secure_rbac(make_filter: MakeFilter, write: Write) -> None:
    text = "role:reader or rule:related_images:recorder"
    made = make_filter(StubGlance(), policy_file=write({policy.READER.name: text}))
    for roles, status in (("member", 403), ("reader,member", 200), ("service", 200)):
        answer = wsgi.call(made, "GET", "/v2/relations", wsgi.identity("u", "p", roles))
        assert answer.status == status
    answer = wsgi.call(made, "GET", "/v2/relations", wsgi.identity("u", "p", "member"))
    assert answer.json["error"]["code"] == "policy.forbidden"


def recorded(made: InstanceAwareMiddleware, installation: str, instance: str, owner: str) -> str:
    """Record a start of a server of a project; returns the path of the relation."""
    image = new_uuid()
    body = {
        "installation_uuid": installation,
        "instance_id": instance,
        "image_id": image,
        "kind": "boot",
        "instance_project_id": owner,
    }
    assert wsgi.call(made, "POST", "/v2/relations", ADMIN, body).status == 201
    return f"/v2/images/{image}/relations/{installation}/{instance}/boot"


MANAGERS = dict.fromkeys(
    (policy.DELETE_RELATION.name, policy.DELETE_INSTANCE.name),
    "rule:related_images:remover or role:manager",
)


def test_managers_of_secure_rbac_end_only_resources_of_their_project(
    make_filter: MakeFilter, write: Write
) -> None:
    made, installation = make_filter(StubGlance(), policy_file=write(MANAGERS)), new_uuid()
    for instance, owner in (("inst-own", "p"), ("inst-other", "q")):
        recorded(made, installation, instance, owner)
    manager = wsgi.identity("u", "p", "manager")

    def end(instance: str, who: dict[str, str]) -> int:
        path = f"/v2/instances/{installation}/{instance}"
        status: int = wsgi.call(made, "DELETE", path, who).status
        return status

    assert end("inst-own", wsgi.identity("u", "p", "member")) == 403
    assert [end("inst-own", manager), end("inst-other", manager)] == [204, 404]
    assert end("inst-other", wsgi.identity("u", "", "manager")) == 404


def test_managers_of_secure_rbac_remove_only_relations_that_they_see(
    make_filter: MakeFilter, write: Write
) -> None:
    made, installation = make_filter(StubGlance(), policy_file=write(MANAGERS)), new_uuid()
    own = recorded(made, installation, "inst-own", "p")
    other = recorded(made, installation, "inst-other", "q")
    manager = wsgi.identity("u", "p", "manager")
    statuses = [wsgi.call(made, "DELETE", path, manager).status for path in (own, other)]
    assert statuses == [204, 404]
    missing = wsgi.call(made, "DELETE", own, manager).json["error"]
    hidden = wsgi.call(made, "DELETE", other, manager).json["error"]
    assert (missing["code"], hidden["code"]) == ("relation.not-found",) * 2


def test_a_manager_does_not_speak_for_a_bound_installation(
    make_filter: MakeFilter, write: Write
) -> None:
    made, installation = make_filter(StubGlance(), policy_file=write(MANAGERS)), new_uuid()
    path = recorded(made, installation, "inst-own", "p")
    bound = {"uuid": installation, "name": "bound", "service_users": [{"user_id": "nova"}]}
    assert wsgi.call(made, "POST", "/v2/installations", ADMIN, bound).status == 201
    answer = wsgi.call(made, "DELETE", path, wsgi.identity("u", "p", "manager"))
    assert answer.json["error"]["code"] == "installation.bound"


def test_no_rule_changes_what_a_project_sees(make_filter: MakeFilter, write: Write) -> None:
    everything = dict.fromkeys(NAMES, "@")
    made, installation = make_filter(StubGlance(), policy_file=write(everything)), new_uuid()
    recorded(made, installation, "inst-1", "q")
    stranger = wsgi.identity("u", "p", "member")
    assert wsgi.call(made, "GET", "/v2/relations", stranger).json["relations"] == []
    assert wsgi.call(made, "GET", "/v2/relations", ADMIN).json["relations"] != []
    assert wsgi.call(made, "GET", f"/v2/instances/{installation}/inst-1", stranger).status == 404


def test_no_rule_permits_a_request_without_a_token(make_filter: MakeFilter, write: Write) -> None:
    made = make_filter(StubGlance(), policy_file=write(dict.fromkeys(NAMES, "@")))
    nobody = {"X-Identity-Status": "Invalid", "X-Roles": "admin,service"}
    assert wsgi.call(made, "GET", "/v2/relations", nobody).status == 401
    headers = nobody | instance_headers(new_uuid(), "inst-1")
    assert wsgi.call(made, "POST", "/v2/images", headers, {}).status == 403


def test_the_options_are_the_defaults(write: Write) -> None:
    options = {"recording_roles": "writer", "admin_roles": "boss, cloud admin"}
    for it in (policy_of(**options), policy_of(write("# no rules\n"), **options)):
        assert permits(it, policy.CREATE_RELATION, roles=["writer"])
        assert permits(it, policy.CREATE_RELATION, service_roles=["writer"])
        assert not permits(it, policy.CREATE_RELATION, roles=["service", "boss"])
        assert permits(it, policy.DELETE_RELATION, roles=["boss"])
        assert not permits(it, policy.CREATE_INSTALLATION, roles=["admin"], service_roles=["boss"])


@pytest.mark.parametrize(
    "role", ["cloud admin", "100%", "%(user_id)s", "a)", "(a", "'a'", '"a"', "="]
)
def test_any_role_may_be_in_the_options(role: str, make_filter: MakeFilter) -> None:
    quoted = f'"{role}"' if '"' not in role else role
    made = make_filter(StubGlance(), admin_roles=quoted)
    configured = config.load("x", {"connection": "sqlite://", "admin_roles": quoted}).admin_roles
    (name,) = configured
    path = "/v2/installations"
    assert wsgi.call(made, "GET", path, wsgi.identity("u", "p", name)).status == 200
    assert wsgi.call(made, "GET", path, wsgi.identity("u", "p", "member")).status == 403


def test_a_file_wins_over_the_options(write: Write) -> None:
    it = policy_of(write({policy.RECORDER.name: "role:from-file"}), recording_roles="from-option")
    assert permits(it, policy.CREATE_IMAGE, roles=["from-file"])
    assert not permits(it, policy.CREATE_IMAGE, roles=["from-option"])


def test_both_tokens_may_be_needed(make_filter: MakeFilter, write: Write) -> None:
    path = write({policy.CREATE_IMAGE.name: "role:member and service_roles:service"})
    made = make_filter(StubGlance(), policy_file=path)
    installation = new_uuid()
    bound = {"uuid": installation, "name": "bound", "service_users": [{"user_id": "nova"}]}
    assert wsgi.call(made, "POST", "/v2/installations", ADMIN, bound).status == 201
    service = {
        "X-Service-Identity-Status": "Confirmed",
        "X-Service-User-Id": "nova",
        "X-Service-Roles": "service",
    }
    for roles, status in (("member", 201), ("reader", 403)):
        who = wsgi.identity("u", "p", roles) | service | instance_headers(installation, "inst-1")
        assert wsgi.call(made, "POST", "/v2/images", who, {}).status == status


WRONG = {
    "nothing": ("", "is empty"),
    "line breaks": ("\n\n", "is empty"),
    "no mapping": ("- a\n- b\n", "must have lines"),
    "a text": ("just words\n", "must have lines"),
    "false": ("false\n", "must have lines"),
    "no YAML": ('"related_images:reader": "@\n', "cannot be read as YAML"),
    "a tab": ('a:\n\t- "b"\n', "cannot be read as YAML"),
    "an object": ("!!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
    "deep": ("[" * 5000, "cannot be read as YAML"),
    "twice": ('"related_images:reader": "!"\n"related_images:reader": "@"\n', "twice"),
    "no value": ('"related_images:reader":\n', "not a text"),
    "a list": ('"related_images:reader": []\n', "not a text"),
    "a boolean": ('"related_images:reader": true\n', "not a text"),
    "a number": ('"related_images:reader": 5\n', "not a text"),
    "empty": ('"related_images:reader": ""\n', "is empty"),
    "blank": ('"related_images:reader": "  "\n', "is empty"),
    "a misspelled rule": ('"related_images:relation:create": "!"\n', "unknown rule"),
    "another prefix": ('"relations:create": "!"\n', "unknown rule"),
    "a rule of Glance": ('"get_images": "role:reader"\n', "unknown rule"),
    "no check": ('"related_images:reader": "role"\n', "not a valid expression"),
    "no check in not": ('"related_images:reader": "not reader"\n', "not a valid expression"),
    "half an expression": ('"related_images:reader": "role:a or"\n', "not a valid expression"),
    "a lone word": ('"related_images:reader": "NOT"\n', "not a valid expression"),
    "a parenthesis": ('"related_images:reader": "(role:a"\n', "not a valid expression"),
    "an undefined rule": ('"related_images:reader": "not rule:b"\n', "does not exist"),
    "itself": ('"related_images:reader": "not rule:related_images:reader"\n', "refers to itself"),
    "a circle": ('"a": "rule:b"\n"b": "rule:a"\n"related_images:reader": "rule:a"\n', "itself"),
    "an unknown word": ('"related_images:reader": "not is_admn:True"\n', "unknown word"),
    "a remote check": ('"related_images:reader": "http://127.0.0.1:1/x"\n', "unknown word"),
    "an unknown target": ('"related_images:reader": "not role:%(x)s"\n', "malformed"),
    "a malformed target": ('"related_images:reader": "role:%(user_id"\n', "malformed"),
    "a format": ('"related_images:reader": "project_id:%d"\n', "malformed"),
    "no role": ('"related_images:reader": "not role:"\n', "needs a value"),
    "upper case": ('"related_images:reader": "not service_roles:Nova"\n', "lower case"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_filter_does_not_start_with_a_wrong_file(
    make_filter: MakeFilter, write: Write, name: str
) -> None:
    text, message = WRONG[name]
    with pytest.raises(ConfigurationError, match=re.escape(message)) as raised:
        make_filter(StubGlance(), policy_file=write(text))
    assert "policy.yaml" in str(raised.value)


def test_the_filter_does_not_start_without_the_file(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes('"related_images:reader": "role:é"'.encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path, latin):
        with pytest.raises(ConfigurationError, match=re.escape(str(path))):
            policy_of(str(path))
    with pytest.raises(ConfigurationError, match="absolute path"):
        policy_of("policy.yaml")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_keeps_the_former_rules(
    write: Write, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    it = policy_of(write({policy.READER.name: "role:reader"}))
    write(WRONG[name][0])
    with caplog.at_level(logging.ERROR, policy.__name__):
        for _ in range(3):
            assert permits(it, policy.LIST_RELATIONS, roles=["reader"])
            assert not permits(it, policy.LIST_RELATIONS, roles=["member"])
    faults = [it.getMessage() for it in caplog.records if it.name == policy.__name__]
    assert len(faults) == 1
    assert "the former policy stays in force" in faults[0]
    write({policy.READER.name: "role:member"})
    assert permits(it, policy.LIST_RELATIONS, roles=["member"])


def test_the_error_shows_no_line_of_a_file_that_is_no_policy(write: Write) -> None:
    path = write("[database]\nconnection = mysql://glance:hidden@db/glance\n")
    with pytest.raises(ConfigurationError, match="cannot be read as YAML: line 2: ") as raised:
        policy_of(path)
    assert "mysql" not in str(raised.value)


def test_a_path_that_the_system_refuses_keeps_the_former_rules(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = tmp_path / ("a" * 300)  # as with a directory that may not be searched
    with pytest.raises(ConfigurationError, match="File name too long"):
        policy_of(str(too_long))
    link = tmp_path / "link.yaml"
    link.symlink_to(write({policy.READER.name: "role:reader"}))
    it = policy_of(str(link))
    link.unlink()
    link.symlink_to(too_long)
    assert not permits(it, policy.LIST_RELATIONS, roles=["member"])
    assert "the former policy stays in force" in caplog.text


def test_a_missing_file_keeps_the_former_rules(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(write({policy.READER.name: "role:reader"}))
    it = policy_of(str(path))
    path.rename(path.with_suffix(".old"))
    for _ in range(3):
        assert not permits(it, policy.LIST_RELATIONS, roles=["member"])
    path.mkdir()
    assert not permits(it, policy.LIST_RELATIONS, roles=["member"])
    faults = [one for one in caplog.records if "former policy" in one.getMessage()]
    assert len(faults) == 1
    path.rmdir()
    write({policy.READER.name: "role:member"})
    assert permits(it, policy.LIST_RELATIONS, roles=["member"])


def test_a_changed_file_applies_to_the_next_request(make_filter: MakeFilter, write: Write) -> None:
    made = make_filter(StubGlance(), policy_file=write({policy.READER.name: "!"}))
    who = wsgi.identity("u", "p", "member")
    assert wsgi.call(made, "GET", "/v2/relations", who).status == 403
    write({policy.READER.name: "role:member"})
    assert wsgi.call(made, "GET", "/v2/relations", who).status == 200
    write("# all defaults\n")
    assert wsgi.call(made, "GET", "/v2/relations", wsgi.identity("u", "p", "x")).status == 200


def test_a_file_is_read_again_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f'"{policy.READER.name}": "!"')
    it = policy_of(str(path))
    time.sleep(0.1)
    with path.open("w") as writing:  # as an editor does: first empty, then complete
        assert not permits(it, policy.LIST_RELATIONS, roles=["x"])
        writing.write(f'"{policy.READER.name}": "role:reader"')
    begun = time.monotonic()
    while not permits(it, policy.LIST_RELATIONS, roles=["reader"]):
        assert not permits(it, policy.LIST_RELATIONS, roles=["x"])
        assert time.monotonic() < begun + 30
        time.sleep(0.05)
    assert time.monotonic() > begun + 0.5
    assert not permits(it, policy.LIST_RELATIONS, roles=["x"])


OPEN, CLOSED = (f'"{policy.READER.name}": "{rule}"\n' for rule in "@!")


def lists(it: Policy) -> bool:
    return permits(it, policy.LIST_RELATIONS, roles=["x"])


@pytest.mark.parametrize(("before", "after"), [(60, 3600), (60, 60), (-3600, 5)])
def test_a_replaced_file_is_read_whatever_its_date(
    tmp_path: Path, before: float, after: float
) -> None:
    path = dated(tmp_path / "policy.yaml", OPEN, before)
    it = policy_of(str(path))
    assert lists(it)
    times = path.stat()
    other = dated(tmp_path / "other.yaml", CLOSED + "# closed\n", after)
    if before == after:
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert not lists(it)


@pytest.mark.parametrize("failing", ["read_text", "is_file"])
def test_a_fault_of_the_system_does_not_end_the_reload(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    monkeypatch.setattr(policy, "_RETRY", 0)
    path = dated(tmp_path / "policy.yaml", OPEN, 60)
    it = policy_of(str(path))
    dated(path, CLOSED, 30)
    with mock.patch.object(Path, failing, side_effect=OSError(116, "Stale")):
        assert lists(it)
        assert lists(it)
    assert [line for line in caplog.messages if "the former policy stays in force" in line]
    assert not lists(it)


def test_a_half_written_file_of_a_clock_that_is_ahead_is_not_read(tmp_path: Path) -> None:
    recorder = f'"{policy.RECORDER.name}": "role:b"\n'
    path = dated(tmp_path / "policy.yaml", CLOSED + recorder, 60)
    it = policy_of(str(path))
    dated(path, recorder, -0.3)
    assert not lists(it)


@pytest.mark.parametrize("rule", ["{[]}:x", "{{}}:x", "~" * 100_000 + ":x"])
def test_a_text_that_python_cannot_parse_is_a_wrong_rule(write: Write, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=policy.READER.name):
        policy_of(write({policy.READER.name: rule}))


def test_a_check_of_another_package_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(_checks.Check):
        def __call__(
            self, target: Any, creds: Any, enforcer: Any, current_rule: str | None = None
        ) -> bool:
            return True

    monkeypatch.setitem(_checks.registered_checks, "project_id", Foreign)
    with pytest.raises(ConfigurationError, match="another package"):
        policy_of(write({policy.READER.name: "project_id:p"}))


def test_threads_see_only_whole_policies(write: Write) -> None:
    it = policy_of(write({policy.READER.name: "role:a", policy.RECORDER.name: "role:b"}))
    opened: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            if permits(it, policy.LIST_RELATIONS, roles=["x"]):
                opened.append("reader")
            if permits(it, policy.CREATE_IMAGE, roles=["service"]):
                opened.append("recorder")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(60):
        wrong = list(WRONG.values())[number % len(WRONG)][0]
        write(wrong if number % 2 else {policy.READER.name: "!", policy.RECORDER.name: "!"})
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert opened == []


SAMPLE_LINES = [line.lstrip("#") for line in SAMPLE.read_text().splitlines() if '": "' in line]
WORDS = st.sampled_from(
    [
        *("role:a", "not", "and", "or", "(", ")", "@", "!", "rule:related_images:reader", "rule:x"),
        *("user_id:%(user_id)s", "is_admin:True", "%(", "role:", ":", "null", "[]", "'", '"', "x"),
    ]
)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
FILES = st.one_of(
    st.text(max_size=60),
    st.dictionaries(st.sampled_from([*NAMES, "x", "related_images:"]), TEXTS, max_size=4).map(
        yaml.safe_dump
    ),
    st.lists(st.sampled_from(SAMPLE_LINES), min_size=1, max_size=4, unique=True).flatmap(
        lambda lines: st.tuples(st.just("\n".join(lines)), st.integers(0, 300), TEXTS).map(
            lambda it: it[0][: it[1]] + it[2] + it[0][it[1] :]
        )
    ),
)


@pytest.mark.slow
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(FILES)
def test_any_file_is_used_or_refused(write: Write, text: str) -> None:
    it: Policy | None
    try:
        path = write(text)
    except UnicodeEncodeError:
        return
    try:
        it = policy_of(path)
    except ConfigurationError:
        it = None
    # and after a reload: the same decisions if it is used, else the former ones
    reloaded = policy_of(write(dict.fromkeys(NAMES, "!")))
    write(text)
    for rule in policy.RULES:
        for credentials in ({"roles": ["x"]}, {"roles": ["admin"]}, {"service_roles": ["service"]}):
            now = permits(reloaded, rule, **credentials)
            assert now is (it is not None and permits(it, rule, **credentials))


def test_a_decision_is_remembered_for_equal_credentials_and_targets(write: Write) -> None:
    it = policy_of(write({policy.READER.name: "role:a and project_id:%(project_id)s"}))

    def decides(roles: list[str], project: str, target: str) -> tuple[bool, int]:
        """Return the decision, and how many checks oslo.policy evaluated for it."""
        with mock.patch.object(_checks, "_check", wraps=_checks._check) as checked:
            credentials = {"roles": roles, "project_id": project}
            decision = it.permits(
                policy.LIST_RELATIONS, attributes(credentials), (("project_id", target),)
            )
        return decision, checked.call_count

    questions = [(["a"], "p", "p"), (["b"], "p", "p"), (["a"], "q", "p"), (["a"], "p", "q")]
    for question, permitted in zip(questions, (True, False, False, False), strict=True):
        decision, checks = decides(*question)
        assert decision is permitted
        assert checks > 0
    for question, permitted in zip(questions, (True, False, False, False), strict=True):
        assert decides(*question) == (permitted, 0)
    # other rules have other decisions
    assert not permits(it, policy.CREATE_IMAGE, roles=["a"], project_id="p")


def test_a_rule_evaluates_few_checks(write: Write) -> None:
    """Print how long a decision takes that is not remembered."""
    target = (("user_id", "u"), ("project_id", "p"))
    longest = {name: f"({rule.default}) or role:y" for name, rule in NAMES.items()}
    for it in (policy_of(), policy_of(write(longest))):
        for rule in policy.RULES:
            times = []
            for number in range(20):
                credentials = {
                    "roles": [f"role-{each}" for each in range(10)],
                    "service_roles": ["other"],
                    "user_id": f"u{number}",
                    "project_id": "p",
                }
                with mock.patch.object(_checks, "_check", wraps=_checks._check) as checked:
                    it.permits(rule, attributes(credentials), target)
                assert 0 < checked.call_count <= MOST_CHECKS
                begun = time.perf_counter()
                it.permits(rule, attributes(credentials | {"user_id": f"v{number}"}), target)
                times.append((time.perf_counter() - begun) * 1000)
            print(f"{rule.name}: {median(times):.3f} ms")


def test_the_checker_of_oslo_policy_accepts_the_sample(tmp_path: Path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("\n".join(SAMPLE_LINES))
    token = {
        "token": {
            "roles": [{"name": "service"}],
            "user": {"id": "nova", "domain": {"id": "default"}},
            "project": {"id": "services", "domain": {"id": "default"}},
        }
    }
    access = tmp_path / "access.json"
    access.write_text(json.dumps(token))
    command = (f"{sys.prefix}/bin/oslopolicy-checker", "--policy", rules, "--access", access)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = (line.split(": ") for line in done.stdout.splitlines())
    results = {name: verdict for verdict, name in lines}
    assert set(results) == set(NAMES)
    expected = policy_of()
    for name, rule in NAMES.items():
        verdict = "passed" if permits(expected, rule, roles=["service"]) else "failed"
        assert results[name] == verdict


def test_the_sample_is_a_policy_file(tmp_path: Path) -> None:
    active = tmp_path / "policy.yaml"
    active.write_text("\n".join(SAMPLE_LINES))
    for it in (policy_of(str(SAMPLE)), policy_of(str(active))):
        for rule in policy.RULES:
            for roles in (["admin"], ["service"], ["member"]):
                assert permits(it, rule, roles=roles) is permits(policy_of(), rule, roles=roles)


@pytest.mark.parametrize("rule", policy.RULES, ids=lambda it: it.name)
def test_every_rule_is_documented_with_its_default(rule: Rule) -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    assert f"| `{rule.name}` | `{rule.default}` |" in page
