"""Being told to stop by a signal, and waiting for that."""

from __future__ import annotations

import time

#: How late a wait may notice.
_LOOK_S = 0.05


class Stopping:
    """What `threading.Event` is to threads, for signals: their handlers run within the `wait` that they are to end.

    An `Event` stands still for ever where the handler finds `wait` holding the lock that `set` takes. Here is none.
    """

    def __init__(self) -> None:
        self._told = False

    def set(self) -> None:
        """Stop, from now on. Handlers of signals may call it."""
        self._told = True

    def is_set(self) -> bool:
        return self._told

    def wait(self, seconds: float) -> bool:
        """At most so long until it is set; whether it is."""
        ends = time.monotonic() + seconds
        while not self._told and (left_s := ends - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
        return self._told
