"""The relations in a database: tables, functions on a connection, schema, and the way in."""
