"""The log from Python: several processes, damage and other makes, each said by its code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.streams import RecordsLost, Topic, open_topic

APPEND = """
import sys
from penstock.streams import open_topic
with open_topic(sys.argv[1]) as topic:
    for number in range(150):
        topic.append([f"{sys.argv[2]} {number} {more}".encode() for more in range(3)])
"""


def everything(topic: Topic) -> list[bytes]:
    found, offset = [], 0
    while (batch := topic.read(0, offset)).records:
        found += [record.value for record in batch.records]
        offset = batch.next
    return found


def filled(folder: Path, records: int = 20) -> Path:
    with open_topic(f"log:{folder}") as topic:
        for number in range(records):
            topic.append([b"%03d" % number + b"." * 97])
    return folder / "0" / f"{1:020}.log"


def test_processes_append_at_once_and_every_batch_stays_together(tmp_path: Path) -> None:
    address = f"log:{tmp_path / 't'}?segment=4KiB"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, address, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with open_topic(address) as topic:
        words = [value.split() for value in everything(topic)]
        assert topic.size(0)[0] > 3  # type: ignore[attr-defined]
    assert len(words) == 3 * 450
    for name in (b"a", b"b", b"c"):
        assert [int(number) for who, number, _ in words if who == name] == sorted([*range(150)] * 3)
    assert all([more for _, _, more in words[at : at + 3]] == [b"0", b"1", b"2"] for at in range(0, len(words), 3))


def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    segment = filled(tmp_path / "t")
    data = bytearray(segment.read_bytes())
    data[88 + 7 * 132 + 50] ^= 1
    segment.write_bytes(data)
    with open_topic(f"log:{tmp_path / 't'}") as topic:
        first = topic.read(0, 0)
        assert [record.offset for record in first.records] == [*range(7)]
        with pytest.raises(RecordsLost) as lost:
            topic.read(0, first.next)
        assert (lost.value.first, lost.value.next, lost.value.code) == (7, 8, "STRM009")
        assert segment.name in str(lost.value)
        rest = topic.read(0, lost.value.next).records
        assert [record.offset for record in rest] == [*range(8, 20)]
        assert topic.append([b"more"]) == {0: 21}
    assert segment.read_bytes()[: len(data)] == data, "what is damaged is left as it is"


def test_what_a_killed_writer_left_is_passed_over_and_kept(tmp_path: Path) -> None:
    segment = filled(tmp_path / "t")
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[88 : 88 + 70])  # the beginning of a record
    with open_topic(f"log:{tmp_path / 't'}") as topic:
        assert len(everything(topic)) == 20
        topic.append([b"after"])
        assert everything(topic)[20:] == [b"after"]
    assert segment.read_bytes() == whole + whole[88 : 88 + 70]


def test_a_log_of_a_newer_make_or_of_no_make_is_refused(tmp_path: Path) -> None:
    def code(work: object) -> str:
        with pytest.raises(PenstockError) as refused:
            work()  # type: ignore[operator]
        return refused.value.code

    segment = filled(tmp_path / "t")
    data = segment.read_bytes()
    with open_topic(f"log:{tmp_path / 't'}") as topic:
        segment.write_bytes(data[:8] + b"\x02" + data[9:])
        assert code(lambda: topic.read(0, 0)) == "STRM014"
        assert code(lambda: topic.append([b"x"])) == "STRM014"
        segment.write_bytes(b"something else" * 20)
        assert code(lambda: topic.read(0, 0)) == "STRM013"
    facts = tmp_path / "t" / "topic.json"
    facts.write_text('{"penstock": "log/2", "partitions": 1, "made_ms": 0}')
    assert code(lambda: open_topic(f"log:{tmp_path / 't'}")) == "STRM014"
    facts.write_text("<html>")
    assert code(lambda: open_topic(f"log:{tmp_path / 't'}")) == "STRM013"
    (tmp_path / "file").write_text("no folder")
    assert code(lambda: open_topic(f"log:{tmp_path / 'file'}")) == "STRM010"


def test_a_segment_that_is_cut_under_a_reader_is_an_error_and_appends_go_on(tmp_path: Path) -> None:
    segment = filled(tmp_path / "t")
    with open_topic(f"log:{tmp_path / 't'}") as topic:
        topic.append([b"x"])
        assert topic.read(0, 0, records=10).next == 10
        os.truncate(segment, 88 + 5 * 132)
        with pytest.raises(PenstockError) as cut:
            topic.read(0, 10)
        assert cut.value.code in ("STRM008", "STRM013")
        assert topic.append([b"after"]) == {0: 22}
        with pytest.raises(RecordsLost) as lost:
            topic.read(0, 10)
        assert lost.value.next == 21
        assert [record.value for record in topic.read(0, 21).records] == [b"after"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root to be made")
def test_a_full_disk_refuses_loses_nothing_and_the_log_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip(f"no small disk can be made: {made.stderr.decode().strip()}")
    try:
        with open_topic(f"log:{disk / 't'}") as topic:
            acknowledged = []
            with pytest.raises(PenstockError) as full:
                for number in range(100):
                    value = b"%03d" % number * 1500
                    topic.append([value])
                    acknowledged.append(value)
            assert full.value.code == "STRM011" and "disk is full" in str(full.value)
            assert everything(topic) == acknowledged
            subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
            topic.append([b"room"])
            assert everything(topic) == [*acknowledged, b"room"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_positions_are_forgotten_when_told(tmp_path: Path) -> None:
    filled(tmp_path / "t")
    with open_topic(f"log:{tmp_path / 't'}") as topic:
        topic.commit("a", {0: 3})
        topic.commit("b", {0: 4})
        assert topic.groups() == ["a", "b"]  # type: ignore[attr-defined]
        topic.forget("a")  # type: ignore[attr-defined]
        assert topic.committed("a") == {} and topic.committed("b") == {0: 4}
        group = tmp_path / "t" / "0" / "b.group"
        group.write_bytes(group.read_bytes()[:-1] + b"x")
        with pytest.raises(PenstockError, match="damaged") as damaged:
            topic.committed("b")
        assert damaged.value.code == "STRM013"
    with pytest.raises(ValueError, match="closed"):
        topic.append([b"x"])
