"""A signal ends a wait, whichever line of it it comes upon."""

from __future__ import annotations

import subprocess
import sys
import threading

from penstock.data.stopping import Stopping

#: Signals from 1 to 100 microseconds into a wait of many short steps. An `Event` stands still before the end.
STORM = """
import signal
from penstock.data.stopping import Stopping
waited = [Stopping()]
signal.signal(signal.SIGALRM, lambda *_: waited[0].set())
for turn in range(5_000):
    waited[0] = Stopping()
    signal.setitimer(signal.ITIMER_REAL, (1 + turn % 100) * 1e-6)
    while not waited[0].wait(1e-6):
        pass
print("done")
"""


def test_a_signal_that_comes_at_any_instant_of_a_wait_ends_it() -> None:
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_it_stays_set_for_everybody() -> None:
    stop = Stopping()
    assert not stop.is_set() and not stop.wait(0.0)
    waiting = [threading.Thread(target=stop.wait, args=(60,)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    stop.set(), stop.set()
    for thread in waiting:
        thread.join(60)
        assert not thread.is_alive()
    assert stop.is_set() and stop.wait(0.0)
