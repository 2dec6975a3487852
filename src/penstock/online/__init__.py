"""Samples from behaviour: impressions and feedback, joined into what models learn from, each sample exactly once.

In: two topics (what was shown, what users did). Out: a topic of samples in the order in which they are emitted. Read
`joiner.py` first, then `runner.py`, and `docs/samples-from-behaviour.md`.
"""

from __future__ import annotations

from .settings import JoinFile, read
from .terms import Kind, Terms

__all__ = ["JoinFile", "Kind", "Terms", "read"]
