"""Operators of our own: tables of SQLite in and out, and sessions of users. Read `sessions.py` first."""
