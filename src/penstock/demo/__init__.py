"""The main job, told once: simulate (or take) logs, run the flow, compare with the best possible.

In: a folder to work in, or a file in Criteo's format. Out: the flow's outputs and one line of figures.
Read `story.py` first, then `service.py` (the model goes live) and `loop.py` (it learns from its visitors).
`simulator.py` makes the logs, `crowd.py` the visitors; `ctr/`, `criteo/`, `loop/` are the flows (examples/ links here).
"""

from penstock.demo.story import Looped, Outcome, run_criteo, run_loop, run_simulated

__all__ = ["Looped", "Outcome", "run_criteo", "run_loop", "run_simulated"]
