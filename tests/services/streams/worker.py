"""A writer or a reader that a test kills: `worker.py write|read ADDRESS FILE LIFE`.

What was acknowledged, or seen, stands in FILE a line each; it outlives the process because the system has it.
"""

from __future__ import annotations

import os
import sys
import time

from penstock.streams import open_topic

KEYS = [b"a", b"b", b"c", b"d", b"e"]
GROUP = "killed"


def main() -> None:
    role, address, path, life = sys.argv[1:]
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open_topic(address, create=False) as topic:
        if role == "write":
            number = int(life) * 1_000_000
            while True:
                keys = [KEYS[(number + more) % len(KEYS)] for more in range(1 + number % 7)]
                values = [b"%d" % (number + more) for more in range(len(keys))]
                topic.append(values, keys=keys)
                os.write(out, b"".join(b"%s %s\n" % (key, value) for key, value in zip(keys, values, strict=True)))
                number += len(keys)
                time.sleep(0.002)  # readers are to keep up
        positions = dict.fromkeys(range(topic.partitions), 0) | topic.committed(GROUP)
        os.write(out, b"life %s\n" % life.encode())
        while True:
            for partition, batch in topic.poll(positions, wait_s=0.2, records=200).items():
                os.write(out, b"".join(b"%s %s\n" % (r.key, r.value) for r in batch.records))
                positions[partition] = batch.next
            topic.commit(GROUP, positions)


if __name__ == "__main__":
    main()
