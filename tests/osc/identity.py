"""A scripted Keystone with one user, a catalog of two services, and some projects."""

import json
from typing import Any
from urllib.parse import parse_qsl

from tests.client.scripted import Asked, Reply, Scripted, shown

PASSWORD = "secret"


class Identity:
    """A scripted identity service.

    :ivar projects: the names of projects by ID
    :ivar refusal: the status of responses to requests for projects; ``None`` for success
    """

    def __init__(
        self, scripted: Scripted, glance: str, token: str, compute: str | None = None
    ) -> None:
        self.projects: dict[str, str] = {}
        self.refusal: int | None = None
        self.url = f"{scripted.url}/identity/v3"
        self._services = {"image": glance, "identity": self.url}
        if compute is not None:
            self._services["compute"] = compute
        self._token = token
        scripted.script = self.answer

    def options(self) -> dict[str, str]:
        """Return the environment variables with which a program authenticates here."""
        return {
            "OS_AUTH_URL": self.url,
            "OS_USERNAME": "alice",
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "own",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }

    def answer(self, asked: Asked) -> Reply:
        path = asked.path.removeprefix("/identity/v3").rstrip("/")
        if path == "":
            links = [{"rel": "self", "href": self.url}]
            return shown({"version": {"id": "v3.14", "status": "stable", "links": links}})
        if path == "/auth/tokens":
            if (
                json.loads(asked.body)["auth"]["identity"]["password"]["user"]["password"]
                != PASSWORD
            ):
                return shown({"error": {"code": 401, "message": "not this one"}}, 401)
            return shown({"token": self._shown_token()}, 201, X_Subject_Token=self._token)
        return Reply(self.refusal) if self.refusal else self._look_up(path, asked.query)

    def _look_up(self, path: str, query: str) -> Reply:
        if path == "/projects":
            ((_, name),) = parse_qsl(query)
            return shown(
                {"projects": [{"id": i, "name": n} for i, n in self.projects.items() if n == name]}
            )
        project_id = path.removeprefix("/projects/")
        if project_id not in self.projects:
            return Reply(404)
        return shown({"project": {"id": project_id, "name": self.projects[project_id]}})

    def _shown_token(self) -> dict[str, Any]:
        domain = {"id": "default", "name": "Default"}
        return {
            "methods": ["password"],
            "expires_at": "2999-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "alice-id", "name": "alice", "domain": domain},
            "project": {"id": "own-id", "name": "own", "domain": domain},
            "roles": [{"id": "member", "name": "member"}],
            "catalog": [
                {
                    "id": kind,
                    "name": kind,
                    "type": kind,
                    "endpoints": [
                        {
                            "id": kind,
                            "interface": "public",
                            "region": "one",
                            "region_id": "one",
                            "url": url,
                        }
                    ],
                }
                for kind, url in self._services.items()
            ],
        }
