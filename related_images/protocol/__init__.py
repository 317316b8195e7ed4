"""The wire protocol: headers, paths, query parameters and JSON schemas.

The package does no I/O, uses no third-party library and depends on no database or WSGI server.
"""
