"""What goes over the wire: headers, paths, parameters and JSON shapes, each named once.

Pure: no input or output, no third-party library, nothing that knows a database or a WSGI server.
"""
