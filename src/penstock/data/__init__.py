"""Formats, filesystems, schemas: bytes come in and go out here.

In: paths and URLs. Out: lazy frames, and files written whole or not at all. Read `schema.py` first.
"""
