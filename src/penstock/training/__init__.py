"""Models: from mapped or raw frames to bundles, and from bundles to scores and metrics.

In: frames and feature plans. Out: model bundles (folders), scores, metrics. Read `operators.py` first, then `inputs.py`
(which columns a model takes), `matrices.py` (how they become numbers) and `bundle.py` (what is stored).
"""
