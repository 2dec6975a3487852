"""Adapters to what computes: one node's inner DAG on Polars, a command, later Spark, Flink, TensorFlow.

In: a `NodeSpec` (JSON). Out: events and a `NodeResult`. Read `spec.py`, then `worker.py`, then `local.py`.
"""

from penstock.engines.base import Engine, Events, UnknownEngine, engine
from penstock.engines.spec import NodeResult, NodeSpec, OutputResult, Preview, StepSpec

__all__ = [
    "Engine",
    "Events",
    "NodeResult",
    "NodeSpec",
    "OutputResult",
    "Preview",
    "StepSpec",
    "UnknownEngine",
    "engine",
]
