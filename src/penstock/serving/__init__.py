"""Serving: a configuration and bundles come in, a running host (crates/penstock-serve) goes out, and clients of it.

Bundles come by path or from the registry; nothing here trains. Read `config.py` first, then `host.py`.
"""
