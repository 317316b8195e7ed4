"""Create the tables for lineage and delete protection: rebuilds, links, pending deletions."""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import fill, within

revision = "0002"
down_revision = "0001"

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
BOOT = 3

relation = sa.table(
    "related_relation",
    *map(sa.column, ("id", "instance_ref", "image_ref", "kind", "project_ref", "created_at")),
)
descent = sa.table(
    "related_descent",
    *map(sa.column, ("relation_ref", "image_ref", "parent_ref", "project_ref", "kind")),
)


def upgrade() -> None:
    _rebuild()
    _descent()
    _deletion()
    _fill()


def downgrade() -> None:
    for name in ("deletion", "descent", "rebuild"):
        op.drop_table(f"related_{name}", if_exists=True)


def _cascading(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column],
        [f"related_{target}.id"],
        name=f"fk_related_{table}_{column}",
        ondelete="CASCADE",
    )


def _index(table: str, *columns: str) -> None:
    name = f"ix_{table}_{'_'.join(columns)}"
    known = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {found["name"] for found in known}:
        op.create_index(name, table, [*columns])


def _rebuild() -> None:
    op.create_table(
        "related_rebuild",
        sa.Column("relation_ref", KEY, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("relation_ref", "started_at", name="pk_related_rebuild"),
        _cascading("rebuild", "relation_ref", "relation"),
        if_not_exists=True,
        **OPTIONS,
    )


def _descent() -> None:
    op.create_table(
        "related_descent",
        sa.Column("relation_ref", KEY, nullable=False),
        sa.Column("image_ref", KEY, nullable=False),
        sa.Column("parent_ref", KEY, nullable=False),
        sa.Column("project_ref", sa.Integer),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("relation_ref", name="pk_related_descent"),
        _cascading("descent", "relation_ref", "relation"),
        _cascading("descent", "image_ref", "image"),
        _cascading("descent", "parent_ref", "image"),
        sa.ForeignKeyConstraint(
            ["project_ref"], ["related_project.id"], name="fk_related_descent_project_ref"
        ),
        if_not_exists=True,
        **OPTIONS,
    )
    _index("related_descent", "image_ref", "relation_ref")
    _index("related_descent", "parent_ref", "relation_ref")
    _index("related_descent", "parent_ref", "project_ref", "relation_ref")


def _deletion() -> None:
    op.create_table(
        "related_deletion",
        sa.Column("id", KEY, nullable=False),
        sa.Column("image_ref", KEY, nullable=False),
        sa.Column("begun_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_related_deletion"),
        _cascading("deletion", "image_ref", "image"),
        if_not_exists=True,
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    _index("related_deletion", "image_ref")


def _fill() -> None:
    """Fill the parent links: the last start before the image was made, or else the first start."""
    boot = relation.alias("boot")
    of_instance = (
        sa.select(boot.c.image_ref)
        .where(boot.c.instance_ref == relation.c.instance_ref, boot.c.kind == BOOT)
        .limit(1)
    )
    before = of_instance.where(boot.c.created_at <= relation.c.created_at)
    last = before.order_by(boot.c.created_at.desc(), boot.c.id.desc()).scalar_subquery()
    first = of_instance.order_by(boot.c.created_at, boot.c.id).scalar_subquery()
    parent = sa.func.coalesce(last.correlate(relation), first.correlate(relation))
    made = (
        sa.select(
            relation.c.id.label("relation_ref"),
            relation.c.image_ref,
            parent.label("parent_ref"),
            relation.c.project_ref,
            relation.c.kind,
        )
        .where(within(relation.c.id), relation.c.kind != BOOT)
        .where(~sa.exists().where(descent.c.relation_ref == relation.c.id))
        .subquery("made")
    )
    found = sa.select(made).where(made.c.parent_ref.is_not(None))
    fill(relation, descent.insert().from_select(list(made.c.keys()), found))
