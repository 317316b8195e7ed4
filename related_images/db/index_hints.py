"""Make a database find rows by the right index, although it expects other numbers of rows."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class WithoutIndex(FunctionElement[Any]):
    """The value of a column of numbers, for which PostgreSQL uses no index.

    PostgreSQL expects the same number of servers for each image. To find one server of a popular
    image, it may read all of them by the index on kind and image, instead of the index on image and
    server.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(WithoutIndex)
def _as_it_is(element: WithoutIndex, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(WithoutIndex, "postgresql")
def _in_a_sum(element: WithoutIndex, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} + 0)"


def look_up(
    dialect: str, rows: FromClause, table: FromClause, condition: ColumnElement[bool]
) -> tuple[FromClause, Any]:
    """Join each row with its rows of a table, which an index of the table finds.

    PostgreSQL expects too many rows of a recursive query, and would read the whole table instead.
    It cannot do so if a lateral subquery has an offset.

    :param condition: the condition for the rows of the table
    :returns: the join, and the columns of the table
    """
    if dialect != "postgresql":
        return rows.join(table, condition), table.c
    found = select(table).where(condition).correlate_except(table).offset(0).lateral()
    return rows.join(found, true()), found.c
