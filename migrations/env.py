"""Run the migrations with alembic, on the connection of :mod:`related_images.db.schema`.

Unlike alembic's template, this does not configure logging: the process may be a running service.
"""

from alembic import context

from related_images.db import dialects, schema, tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=tables.metadata,
    version_table=schema.VERSION_TABLE,
    include_name=schema.is_ours,
    transactional_ddl=connection.dialect.name not in dialects.MYSQL,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
