"""The command-line door: parse, call one function, print.

In: argv. Out: text or one JSON document on stdout, problems and progress on stderr, the exit status of CONTRACT §3.
Commands live in one module a group and are imported only when called, so `penstock --help` stays fast.
"""

from penstock.cli.main import main

__all__ = ["main"]
