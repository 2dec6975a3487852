"""Topics in Redis streams: an entry a record, its id `0-(offset + 1)`, written by one script that knows repeats.

Keys, all under one hash tag: `{TOPIC}:meta` (partitions), and for partition N `{TOPIC}:N` (the stream),
`{TOPIC}:N:state` (next offset, latest time), `{TOPIC}:N:groups` (positions), `{TOPIC}:N:by:ID` (a producer's last
append, for a day). An entry has `v` value, `k` key if there is one, `t` time, `m` the latest time so far, by which
times are found.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from . import faults
from .redis_tls import distrust, is_with_tls, is_without_tls
from .settings import Settings, check_group
from .topic import Ack, Batch, Record, Topic

T = TypeVar("T")

#: One call of the script gets so much: Redis answers nobody else meanwhile.
_CHUNK_RECORDS, _CHUNK_BYTES = 1000, 4 << 20
_PRODUCER_SECONDS = 86_400
_TRIM_EVERY_S = 10.0
_PAUSES_S = (0.05, 1.0)
#: A server that says nothing for so long is asked again; it knows an append that it has done.
_ANSWER_S = 30.0

#: KEYS stream, state, producer; ARGV the append's number, seconds to remember it, then for each record key flag, key,
#: value, time. Returns the offset after the last. An append that is told twice is done once.
_APPEND = """
local before = redis.call('HMGET', KEYS[3], 'number', 'next')
if before[1] and tonumber(before[1]) >= tonumber(ARGV[1]) then return tonumber(before[2]) end
local state = redis.call('HMGET', KEYS[2], 'next', 'latest')
local offset, latest = tonumber(state[1] or 0), tonumber(state[2] or 0)
for i = 3, #ARGV, 4 do
  local time = tonumber(ARGV[i + 3])
  if time > latest then latest = time end
  local id = string.format('0-%.0f', offset + 1)
  local m = string.format('%.0f', latest)
  if ARGV[i] == '1' then
    redis.call('XADD', KEYS[1], id, 'v', ARGV[i + 2], 't', ARGV[i + 3], 'm', m, 'k', ARGV[i + 1])
  else
    redis.call('XADD', KEYS[1], id, 'v', ARGV[i + 2], 't', ARGV[i + 3], 'm', m)
  end
  offset = offset + 1
end
redis.call('HSET', KEYS[2], 'next', string.format('%.0f', offset), 'latest', string.format('%.0f', latest))
redis.call('HSET', KEYS[3], 'number', ARGV[1], 'next', string.format('%.0f', offset))
redis.call('EXPIRE', KEYS[3], ARGV[2])
return offset
"""


class RedisTopic(Topic):
    """`redis://HOST:PORT/TOPIC`, or `rediss://` with TLS.

    What an acknowledgement is worth is Redis's settings: they are looked at, and said.
    """

    def __init__(self, server: str, topic: str, settings: Settings, create: bool) -> None:
        if find_spec("redis") is None:
            raise faults.missing_extra("redis-py", "redis")
        import redis

        parts = urlsplit(server)
        self._redis: Any = redis
        trusted = {"ssl_ca_certs": settings.ca} if settings.ca else {}
        self._client: Any = redis.Redis.from_url(
            f"{server}/{settings.db}",
            socket_timeout=min(_ANSWER_S, settings.timeout_s),
            socket_connect_timeout=5.0,
            retry=None,
            protocol=2,
            **trusted,
        )
        self._place, self._tls = (parts.hostname or "", parts.port or 6379), parts.scheme == "rediss"
        self._topic = topic
        self._id, self._number = secrets.token_hex(8), 0
        self._keyless, self._trimmed = 0, time.monotonic()
        self._closed, self._appending = False, threading.Lock()
        name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}/{topic}"
        super().__init__(name, 1, settings)
        self._told = ""
        self._tried("opening it", self._look_at_settings)
        self.partitions = self._tried("opening it", self._found_partitions, create)

    @property
    def durability(self) -> str:
        return self._told

    # --- writing -----------------------------------------------------------------------------------------------

    def _append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]:
        if ack != "none":
            self._refuse_less(ack)
        # Appends are numbered, and the script takes a number that is not above the last for a repeat.
        with self._appending:
            return self._append_in_turn(values, keys, times_ms, partition, ack)

    def _append_in_turn(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]:
        self._keyless = (self._keyless + 1) % self.partitions
        parts: dict[int, list[tuple[bytes | None, bytes, int]]] = {}
        for number, value in enumerate(values):
            key = keys[number] if keys is not None else None
            where = partition if partition is not None else self._keyless if key is None else self.partition_of(key)
            parts.setdefault(where, []).append((key, value, times_ms[number]))
        done = {where: self._append_to(where, records) for where, records in parts.items()}
        self._let_go_of_old()
        return {} if ack == "none" else done

    def _append_to(self, partition: int, records: list[tuple[bytes | None, bytes, int]]) -> int:
        end = 0
        arguments: list[bytes | int] = []
        size = 0
        for number, (key, value, time_ms) in enumerate(records):
            arguments += [int(key is not None), key or b"", value, time_ms]
            size += len(value) + len(key or b"")
            if number + 1 == len(records) or size >= _CHUNK_BYTES or len(arguments) >= 4 * _CHUNK_RECORDS:
                end = self._append_chunk(partition, arguments)
                arguments, size = [], 0
        return end

    def _append_chunk(self, partition: int, arguments: list[bytes | int]) -> int:
        stream = self._key(partition)
        keys = [stream, f"{stream}:state", f"{stream}:by:{self._id}"]
        self._number += 1
        head = [self._number, _PRODUCER_SECONDS]
        script = self._client.register_script(_APPEND)
        return int(self._tried("appending", script, keys=keys, args=[*head, *arguments]))

    def _let_go_of_old(self) -> None:
        kept_s = self.settings.retention_s
        if kept_s is None or time.monotonic() - self._trimmed < _TRIM_EVERY_S:
            return
        self._trimmed = time.monotonic()
        for partition in range(self.partitions):
            self.trim(partition, self.seek(partition, int((time.time() - kept_s) * 1000)))

    def sync(self) -> None:
        """Every append has been answered when it returns."""

    def trim(self, partition: int, before: int) -> None:
        self._known(partition)
        key, first = self._key(partition), f"0-{before + 1}"
        self._tried("trimming", self._client.xtrim, key, minid=first, approximate=False)

    # --- reading -----------------------------------------------------------------------------------------------

    def _read(self, partition: int, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch:
        stream = self._key(partition)
        entries = self._entries(stream, offset, records, size_bytes)
        if not entries:
            start, end = self._bounds(partition)
            if offset > end:
                raise faults.BeyondEnd(self.name, partition, offset, end)
            if offset < start:
                raise faults.TopicTrimmed(self.name, partition, offset, start)
            if offset < end or wait_s <= 0:  # what came in this moment is the next read's
                return Batch([], offset)
            self._wait(stream, offset, wait_s)
            entries = self._entries(stream, offset, records, size_bytes)
        found = [_record(entry) for entry in entries]
        if found and found[0].offset != offset:
            raise faults.TopicTrimmed(self.name, partition, offset, found[0].offset)
        return Batch(found, found[-1].offset + 1 if found else offset)

    def _entries(self, stream: str, offset: int, records: int, size_bytes: int) -> list[Any]:
        """Entries from an offset on without a gap; few at first, until it is known how large they are."""
        found: list[Any] = []
        held, count = 0, 16
        while len(found) < records and held < size_bytes:
            first = f"0-{(_offset(found[-1]) + 1 if found else offset) + 1}"
            most = min(count, records - len(found))
            more = self._tried("reading", self._client.xrange, stream, first, "+", most)
            for entry in more:
                size = len(entry[1][b"v"]) + len(entry[1].get(b"k", b""))
                if found and (held + size > size_bytes or _offset(entry) != _offset(found[-1]) + 1):
                    return found  # trimmed meanwhile: the next read says so
                found.append(entry)
                held += size
            if len(more) < most:
                break
            count = max(16, min(4 * count, 10_000, size_bytes * len(found) // (2 * max(held, 1))))
        return found

    def _wait(self, stream: str, offset: int, wait_s: float) -> None:
        """Until there is something, or the time is over. Blocks in steps: the next notices a connection that died."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            step_ms = max(1, min(1000, int(min(left_s, self.settings.timeout_s / 2) * 1000)))
            if self._tried("reading", self._client.xread, {stream: f"0-{offset}"}, count=1, block=step_ms):
                return

    def _bounds(self, partition: int) -> tuple[int, int]:
        stream = self._key(partition)

        def look() -> tuple[Any, Any]:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.xrange(stream, "-", "+", 1)
                pipeline.hget(f"{stream}:state", "next")
                first, end = pipeline.execute()
            return first, end

        first, end = self._tried("reading", look)
        after = int(end or 0)
        return (_offset(first[0]) if first else after), after

    def start(self, partition: int) -> int:
        self._known(partition)
        return self._bounds(partition)[0]

    def end(self, partition: int) -> int:
        self._known(partition)
        return self._bounds(partition)[1]

    def seek(self, partition: int, time_ms: int) -> int:
        self._known(partition)
        stream = self._key(partition)
        low, end = self._bounds(partition)
        high = end
        # `m` only rises, so where it first reaches the time is the first record as late.
        while low < high:
            middle = (low + high) // 2
            found = self._tried("reading", self._client.xrange, stream, f"0-{middle + 1}", "+", 1)
            if found and int(found[0][1][b"m"]) < time_ms:
                low = _offset(found[0]) + 1
            else:
                high = middle
        if low == self.start(partition):  # the one that first was as late may have been let go of
            return self._first_since(partition, low, time_ms)
        return low

    def _first_since(self, partition: int, offset: int, time_ms: int) -> int:
        while True:
            batch = self._read(partition, offset, 1000, 4 << 20, 0)
            late = next((record.offset for record in batch.records if record.time_ms >= time_ms), None)
            if late is not None:
                return late
            if not batch.records:
                return offset
            offset = batch.next

    # --- positions ---------------------------------------------------------------------------------------------

    def commit(self, group: str, positions: Mapping[int, int]) -> None:
        check_group(group)
        for partition, offset in positions.items():
            end = self.end(partition)
            if offset > end:
                raise faults.BeyondEnd(self.name, partition, offset, end)
            key = f"{self._key(partition)}:groups"
            self._tried("committing", self._client.hset, key, group, offset)

    def committed(self, group: str) -> dict[int, int]:
        check_group(group)
        found = {}
        for partition in range(self.partitions):
            key = f"{self._key(partition)}:groups"
            offset = self._tried("reading", self._client.hget, key, group)
            if offset is not None:
                found[partition] = int(offset)
        return found

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._client.close()

    # --- the server --------------------------------------------------------------------------------------------

    def _key(self, partition: int) -> str:
        return f"{{{self._topic}}}:{partition}"

    def _found_partitions(self, create: bool) -> int:
        key, asked = f"{{{self._topic}}}:meta", self.settings.partitions
        if create:
            self._client.hsetnx(key, "partitions", asked or 1)
        found = self._client.hget(key, "partitions")
        if found is None:
            raise faults.no_topic(self.name)
        if asked is not None and int(found) != asked:
            raise faults.other_partitions(self.name, int(found), asked)
        return int(found)

    def _look_at_settings(self) -> None:
        """Reads what Redis does against loss. Where it does not say, `durability` says that."""
        if self._tls and is_without_tls(*self._place):
            hint = "redis:// is without TLS; or name the port where that Redis speaks it (tls-port)"
            raise faults.refused(self.name, "connecting", "what answers there does not speak TLS", hint)
        persistence = self._client.info("persistence")
        if persistence.get("loading"):  # it says other things of itself until it is done
            raise self._redis.BusyLoadingError("it is reading what it kept")
        try:
            said: dict[str, str] = self._client.config_get("appendfsync", "maxmemory", "maxmemory-policy")
        except self._redis.ResponseError:
            said = {}
        self._kept = bool(persistence.get("aof_enabled"))
        self._fsync = said.get("appendfsync", "unknown")
        policy = said.get("maxmemory-policy", "noeviction")
        self._evicts = policy if policy.startswith("allkeys") and said.get("maxmemory", "0") != "0" else ""
        power = {
            "always": "and power cuts (appendfsync always)",
            "everysec": "and power cuts a second later (appendfsync everysec)",
            "no": "and power cuts when the system syncs (appendfsync no)",
        }.get(self._fsync, "and nobody here may ask whether power cuts too (CONFIG is not allowed)")
        lost = f"; Redis may evict them at any time (maxmemory-policy {self._evicts})" if self._evicts else ""
        self._told = (
            f"acknowledged records survive a killed Redis {power}{lost}"
            if self._kept
            else "acknowledged records are lost with the Redis process (appendonly no)"
        )
        if self.settings.ack != "none":
            self._refuse_less(self.settings.ack)

    def _refuse_less(self, ack: Ack) -> None:
        """Raises where Redis keeps less than `ack` says."""
        if not self._kept:
            raise faults.not_durable(
                self.name, "Redis keeps nothing (appendonly no)", "CONFIG SET appendonly yes, or say ack=none"
            )
        if self._evicts:
            raise faults.not_durable(
                self.name,
                f"Redis may evict any key (maxmemory-policy {self._evicts})",
                "CONFIG SET maxmemory-policy noeviction, or say ack=none",
            )
        if ack == "synced" and self._fsync != "always":
            raise faults.not_durable(
                self.name,
                f"ack=synced, but Redis syncs later (appendfsync {self._fsync})",
                "CONFIG SET appendfsync always, or say ack=written",
            )

    def _tried(self, doing: str, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Does it again while the server is away, for `timeout_s`. Its settings are read anew when it is back."""
        started, pause_s, away = time.monotonic(), _PAUSES_S[0], False
        gone = (self._redis.ConnectionError, self._redis.TimeoutError, self._redis.BusyLoadingError)
        while True:
            try:
                if away:
                    self._look_at_settings()
                return work(*arguments, **named)
            except (self._redis.exceptions.AuthenticationError, self._redis.exceptions.AuthorizationError) as error:
                raise faults.refused(self.name, doing, str(error)) from None
            except gone as error:
                if said := distrust(error):  # waiting makes no certificate better
                    hint = "?ca=FILE names the authority that signed it"
                    raise faults.refused(self.name, doing, said, hint) from None
                if not (self._tls or away) and is_with_tls(*self._place):
                    hint = "rediss:// is with TLS"
                    raise faults.refused(self.name, doing, "what answers there speaks TLS", hint) from None
                away, waited_s = True, time.monotonic() - started
                if waited_s + pause_s > self.settings.timeout_s:
                    raise faults.Unreachable(self.name, doing, waited_s, str(error)) from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSES_S[1])
            except self._redis.RedisError as error:
                raise faults.refused(self.name, doing, str(error)) from None


def _offset(entry: Any) -> int:
    return int(entry[0].partition(b"-")[2]) - 1


def _record(entry: Any) -> Record:
    fields = entry[1]
    return Record(_offset(entry), int(fields[b"t"]), fields.get(b"k"), fields[b"v"])
