"""Penstock: raw logs become samples, samples become models, models become a service that keeps learning.

In: flow files and feature files (CONTRACT). Out: data, model bundles, reports. Read `ARCHITECTURE.md` first.
Nothing heavy is imported here: `penstock --help` answers in well under 200 ms.
"""

__version__ = "0.1.0"
