"""Training that does not end: samples come by a topic, the model learns in event order, and is published as it moves.

In: a TOML file (`settings.py`). Out: checkpoints, a chain of deltas, metrics. Read `run.py` first, then
docs/online-training.md; ADR 0044 says why it is so.
"""
