"""The table layouts that :mod:`benchmarks.layouts` compares.

Each one is described by its differences from the shipped one, and runs the same queries.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    SmallInteger,
    Table,
    UniqueConstraint,
    text,
)

from benchmarks import filling
from benchmarks.filling import Cloud
from related_images.db import schema, tables
from related_images.db.column_types import (
    KEY,
    UtcDateTime,
    UuidText,
    exact_text,
)

_ENGINE: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_NAMED: Final = ("related_installation", "related_project", "related_instance")
_IMAGE: Final = "related_image"


def _copy(*names: str) -> MetaData:
    """Return copies of these shipped tables, to which others can be added."""
    made = MetaData(naming_convention=tables.metadata.naming_convention)
    for name in names:
        tables.metadata.tables[name].to_metadata(made)
    if _IMAGE in names:
        made.tables[_IMAGE].indexes.clear()
        _with_deleted(made, _IMAGE)
    return made


def _relation(made: MetaData, own: Sequence[Column[Any]], *ways: Any, **options: Any) -> None:
    """Add the table of relations, with the columns of all layouts that refer by primary key."""
    Table(
        "related_relation",
        made,
        *own,
        Column("instance_ref", ForeignKey("related_instance.id"), nullable=False),
        Column("project_ref", ForeignKey("related_project.id")),
        *_told(),
        *ways,
        Index(None, "project_ref", "created_at"),
        **_ENGINE,
        **options,
    )


def _told() -> Iterator[Column[Any] | Index]:
    """Yield the columns of a relation in every layout, and the index by time."""
    yield Column("kind", SmallInteger, nullable=False)
    yield Column("label", exact_text(64))
    yield Column("source", SmallInteger, nullable=False)
    yield Column("created_at", UtcDateTime, nullable=False)
    yield Column("claimed", SmallInteger, nullable=False, server_default="0")
    yield Index(None, "created_at")


def _own_number() -> Column[int]:
    return Column("id", KEY, primary_key=True)


def _own_image() -> Iterator[Column[Any]]:
    yield Column("image_uuid", UuidText, nullable=False)
    yield Column("deleted_at", UtcDateTime)


def _refers_to_image() -> Column[int]:
    return Column("image_ref", ForeignKey("related_image.id"), nullable=False)


def _written_out() -> MetaData:
    made = _copy()
    Table(
        "related_relation",
        made,
        _own_number(),
        Column("installation_uuid", UuidText, nullable=False),
        Column("instance_id", exact_text(255), nullable=False),
        Column("project_id", exact_text(255)),
        *_own_image(),
        *_told(),
        UniqueConstraint("image_uuid", "installation_uuid", "instance_id", "kind"),
        Index(None, "instance_id", "installation_uuid", "kind", "created_at"),
        Index(None, "project_id", "created_at"),
        Index(None, "project_id", "instance_id", "installation_uuid"),
        **_ENGINE,
    )
    return _with_deleted(made)


def _with_deleted(made: MetaData, name: str = "related_relation") -> MetaData:
    """Add the index of deleted images; it is partial where the database supports that."""
    deleted_at = made.tables[name].c.deleted_at
    known = deleted_at.is_not(None)
    Index(None, deleted_at, sqlite_where=known, postgresql_where=known)
    return made


def _without_images() -> MetaData:
    made = _copy(*_NAMED)
    _relation(
        made,
        [_own_number(), *_own_image()],
        UniqueConstraint("image_uuid", "instance_ref", "kind"),
        Index(None, "instance_ref", "kind", "created_at"),
        Index(None, "project_ref", "instance_ref"),
    )
    return _with_deleted(made)


def _clustered(*ways: Index) -> MetaData:
    """Cluster by instance; PostgreSQL has a covering index instead."""
    made = _copy(*_NAMED, _IMAGE)
    key = PrimaryKeyConstraint(
        "instance_ref", "kind", "image_ref", postgresql_include=["created_at"]
    )
    # an index also holds the columns of the primary key
    _relation(
        made, [_refers_to_image()], key, Index(None, "image_ref"), *ways, sqlite_with_rowid=False
    )
    return made


def _with_pairs(made: MetaData) -> MetaData:
    """Add the table with one row for each project and instance."""
    Table(
        "related_belonging",
        made,
        Column("project_ref", ForeignKey("related_project.id"), primary_key=True),
        Column("instance_ref", ForeignKey("related_instance.id"), primary_key=True),
        sqlite_with_rowid=False,
        **_ENGINE,
    )
    return made


def _paired() -> MetaData:
    made = _copy(*_NAMED, _IMAGE)
    _relation(
        made,
        [_own_number(), _refers_to_image()],
        UniqueConstraint("image_ref", "instance_ref", "kind"),
        Index(None, "instance_ref", "kind", "created_at"),
    )
    return _with_pairs(made)


def _narrow(made: MetaData) -> MetaData:
    """Make integers four bytes wide instead of eight."""
    for table in made.tables.values():
        for column in table.c:
            if isinstance(column.type, BigInteger):
                column.type = Integer()
    return made


_THIS: Final = (
    "instance_id = :instance AND "
    "installation_ref = (SELECT id FROM related_installation WHERE uuid = :installation)"
)
_PAGE: Final = (
    "SELECT l.uuid, s.instance_id, {uuid}, r.kind, r.label, p.project_id, "
    "r.created_at * {unit}, {deleted_at} FROM (SELECT * FROM related_relation {of_project} "
    "ORDER BY created_at DESC, {tie} LIMIT 100) AS r "
    "JOIN related_instance AS s ON s.id = r.instance_ref "
    "JOIN related_installation AS l ON l.id = s.installation_ref {images} "
    "LEFT JOIN related_project AS p ON p.id = r.project_ref ORDER BY r.created_at DESC"
)
_OF_PROJECT: Final = (
    "WHERE project_ref = (SELECT id FROM related_project WHERE project_id = :project)"
)
QUESTIONS: Final = {
    "images of an instance": "SELECT DISTINCT {uuid} FROM related_relation AS r {images} "  # noqa: S608
    f"WHERE r.instance_ref = (SELECT id FROM related_instance WHERE {_THIS}) "
    "AND r.kind IN (1, 2) AND {deleted_at} IS NULL LIMIT 1000",
    "newest 100 of a project": _PAGE.replace("{of_project}", _OF_PROJECT),
    "newest 100": _PAGE.replace("{of_project}", ""),
    "100 instances of a project": f"SELECT DISTINCT instance_ref FROM {{pairs}} {_OF_PROJECT} "  # noqa: S608
    "ORDER BY instance_ref LIMIT 100",
    "instances of an image": "SELECT s.instance_id, r.kind FROM related_relation AS r "
    "JOIN related_instance AS s ON s.id = r.instance_ref WHERE {of_image}",
}
_REFERRING: Final = {
    "uuid": "m.uuid",
    "deleted_at": "m.deleted_at",
    "images": "JOIN related_image AS m ON m.id = r.image_ref",
    "of_image": "r.image_ref = (SELECT id FROM related_image WHERE uuid = :image)",
    "pairs": "related_relation",
    "tie": "id DESC",
    "unit": "1",
}
_OWNING: Final = {
    "uuid": "r.image_uuid",
    "deleted_at": "r.deleted_at",
    "images": "",
    "of_image": "r.image_uuid = :image",
}
_KEYED: Final = {"tie": "instance_ref DESC, kind DESC, image_ref DESC"}
_PAIRED: Final = {"pairs": "related_belonging"}
_MILLISECONDS: Final = {"unit": "1000"}

_WRITTEN_PAGE: Final = (
    "SELECT installation_uuid, instance_id, image_uuid, kind, label, project_id, created_at, "
    "deleted_at FROM related_relation {of_project} ORDER BY created_at DESC, id DESC LIMIT 100"
)
_WRITTEN_QUESTIONS: Final = {
    "images of an instance": "SELECT DISTINCT image_uuid FROM related_relation "
    "WHERE instance_id = :instance AND installation_uuid = :installation "
    "AND kind IN (1, 2) AND deleted_at IS NULL LIMIT 1000",
    "newest 100 of a project": _WRITTEN_PAGE.format(of_project="WHERE project_id = :project"),
    "newest 100": _WRITTEN_PAGE.format(of_project=""),
    "100 instances of a project": "SELECT DISTINCT instance_id FROM related_relation "
    "WHERE project_id = :project ORDER BY instance_id LIMIT 100",
    "instances of an image": "SELECT instance_id, kind FROM related_relation "
    "WHERE image_uuid = :image",
}

_KNOWN: Final = (
    "(SELECT :number AS i, :image AS image_uuid, id AS instance_ref, project_ref, 2 AS kind, "  # noqa: S608
    f"'daily' AS label, :at AS created_at FROM related_instance WHERE {_THIS}) AS n"
)
_WRITTEN: Final = (
    "(SELECT :number AS i, :image AS image_uuid, :installation AS installation_uuid, "
    ":instance AS instance_id, :project AS project_id, 2 AS kind, 'daily' AS label, "
    ":at AS created_at) AS n"
)
"""One additional relation, in place of the rows of :mod:`benchmarks.filling`."""
_NOTE_LATEST: Final = f"UPDATE related_instance SET latest_backup_at = :at / {{unit}} WHERE {_THIS}"  # noqa: S608


def _insert(*own: str) -> str:
    """Return an INSERT of relations from columns of the same names, or from ``value AS name``."""
    given = ["kind", "label", "1 AS source", "created_at / {unit} AS created_at", "0 AS claimed"]
    values = [*own, *given]
    names = ", ".join(value.split(" AS ")[-1] for value in values)
    return f"INSERT INTO related_relation ({names}) SELECT {', '.join(values)} FROM {{rows}}"  # noqa: S608


_BELONGING: Final = (
    "INSERT INTO related_belonging (project_ref, instance_ref) "
    "SELECT DISTINCT project_ref, instance_ref FROM {rows} WHERE NOT EXISTS (SELECT 1 "
    "FROM related_belonging AS b WHERE b.project_ref = n.project_ref "
    "AND b.instance_ref = n.instance_ref)"
)
_REFS: Final = ("instance_ref", "i AS image_ref", "project_ref")
_NUMBERED: Final = (filling.IMAGES, _insert("i AS id", *_REFS))
_CLUSTERED: Final = (filling.IMAGES, _insert(*_REFS))


@dataclass(frozen=True)
class Layout:
    """A layout: its tables, its inserts, and the differences of its queries."""

    tables: MetaData
    inserts: Sequence[str] = _NUMBERED
    words: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=lambda: QUESTIONS)
    names_once: bool = True

    def statement(self, template: str, **more: str) -> str:
        return template.format(**{**_REFERRING, **self.words, **more})

    def make(self, url: str) -> None:
        """Upgrade the database, and replace the shipped tables with those of the layout."""
        schema.upgrade(url)
        if self.tables is not tables.metadata:
            with schema.connected(url) as connection:
                tables.metadata.drop_all(connection)
                self.tables.create_all(connection)
                connection.commit()

    def fill(self, connection: Connection, cloud: Cloud) -> None:
        filling.begin(connection)
        if self.names_once:
            filling.fill_names(connection, cloud)
        inserts = [self.statement(one, rows="{rows}") for one in self.inserts]
        filling.fill_relations(connection, cloud, inserts)
        if self.names_once:
            filling.fill_latest(connection)
        filling.settle(connection)

    def ask(
        self, connection: Connection, question: str, given: Mapping[str, Any]
    ) -> Sequence[Row[Any]]:
        return connection.execute(text(self.statement(self.questions[question])), given).all()

    def record(self, connection: Connection, given: Mapping[str, Any]) -> None:
        rows = _KNOWN if self.names_once else _WRITTEN
        for one in (*self.inserts, *([_NOTE_LATEST] if self.names_once else [])):
            connection.execute(text(self.statement(one, rows=rows)), given)
        connection.commit()


LAYOUTS: Final = {
    "as shipped": Layout(tables.metadata),
    "all IDs as text": Layout(
        _written_out(),
        [_insert("i AS id", "installation_uuid", "instance_id", "project_id", "image_uuid")],
        questions=_WRITTEN_QUESTIONS,
        names_once=False,
    ),
    "no image table": Layout(
        _without_images(),
        [_insert("i AS id", "image_uuid", "instance_ref", "project_ref")],
        _OWNING,
    ),
    "clustered by server": Layout(
        _clustered(Index(None, "project_ref", "instance_ref")), _CLUSTERED, _KEYED
    ),
    "table of project and server pairs": Layout(_paired(), [*_NUMBERED, _BELONGING], _PAIRED),
    "four-byte numbers, milliseconds": Layout(
        _narrow(_copy(*_NAMED, _IMAGE, "related_relation")), words=_MILLISECONDS
    ),
    "clustered, pairs, four bytes, milliseconds": Layout(
        _narrow(_with_pairs(_clustered())),
        [*_CLUSTERED, _BELONGING],
        {**_KEYED, **_PAIRED, **_MILLISECONDS},
    ),
}
