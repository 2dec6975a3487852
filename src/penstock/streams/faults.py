"""What goes wrong with topics, a class each thing that a reader or writer can act on; pages are in docs/errors."""

from __future__ import annotations

from penstock.errors import PenstockError, RequestError


class AddressError(RequestError):
    """An address that names no topic, or asks of it what it cannot be (STRM001 to STRM005)."""


class StreamError(PenstockError):
    """A topic that cannot be read or written as asked (STRM006 to STRM021)."""


class TopicTrimmed(StreamError):
    """The records at the offset are no longer kept; `start` is the oldest that is (STRM007)."""

    def __init__(self, topic: str, partition: int, asked: int, start: int) -> None:
        self.start = start
        super().__init__(
            f"{topic}, partition {partition}: offset {asked} is no longer kept; the oldest is {start}",
            f"go on from {start} and count what lies between as lost, or keep more (retention)",
            "STRM007",
        )


class BeyondEnd(StreamError):
    """The offset is beyond the end, `end`: it is of another topic, or the topic lost records (STRM008)."""

    def __init__(self, topic: str, partition: int, asked: int, end: int) -> None:
        self.end = end
        super().__init__(
            f"{topic}, partition {partition}: offset {asked} is beyond the end, {end}",
            "is it this topic's? if it is, records were lost with the power or with their disk",
            "STRM008",
        )


class RecordsLost(StreamError):
    """Records from `first` to before `next` are damaged; those from `next` on can be read (STRM009)."""

    def __init__(self, message: str, first: int, next: int) -> None:
        self.first, self.next = first, next
        super().__init__(
            message,
            f"read on from offset {next}; {next - first} offsets are lost; look at the disk that holds them",
            "STRM009",
        )


class BacklogFull(StreamError):
    """Readers are too far behind, and did not catch up in time; nothing was appended (STRM016)."""

    def __init__(self, topic: str, lag: int, most: int, groups: tuple[str, ...], waited_s: float) -> None:
        super().__init__(
            f"{topic}: {', '.join(groups)} is {lag} records behind, more than {most}, after {waited_s:.0f} s; "
            "nothing was appended",
            "is it running? give it more room (backlog=) or more time (timeout=)",
            "STRM016",
        )


class Unreachable(StreamError):
    """The broker did not answer in time (STRM017)."""

    def __init__(self, topic: str, doing: str, waited_s: float, cause: str) -> None:
        super().__init__(
            f"{topic}: no answer within {waited_s:.0f} s while {doing}: {cause}",
            "is the broker up, and the address right? what was being appended may or may not be there",
            "STRM017",
        )


class Fenced(StreamError):
    """A later producer with the same transactional_id has taken over (STRM018)."""

    def __init__(self, topic: str, transactional_id: str) -> None:
        super().__init__(
            f"{topic}: another producer has taken over transactional_id '{transactional_id}'; nothing was appended",
            "this process is the older one: end it",
            "STRM018",
        )


def missing_extra(package: str, extra: str) -> AddressError:
    """Raised where a backend's client library is not installed."""
    return AddressError(
        f"{extra}:// topics need {package}, which is not installed", f"pip install 'penstock[{extra}]'", "STRM003"
    )


def no_topic(topic: str) -> AddressError:
    return AddressError(f"{topic}: there is no such topic", "a writer makes it; or is the address right?", "STRM004")


def other_partitions(topic: str, found: int, asked: int) -> AddressError:
    return AddressError(
        f"{topic} has {found} partitions, not {asked}",
        f"say partitions={found} or leave it out; to have {asked}, copy it into a new topic",
        "STRM005",
    )


def too_large(what: str) -> StreamError:
    return StreamError(what, "append smaller records, or fewer at once", "STRM006")


def not_durable(topic: str, what: str, hint: str) -> StreamError:
    return StreamError(f"{topic}: {what}", hint, "STRM019")


def refused(topic: str, doing: str, cause: str, hint: str = "ask whoever runs the broker") -> StreamError:
    return StreamError(f"{topic}: refused while {doing}: {cause}", hint, "STRM020")


def no_partition(topic: str, partition: int, partitions: int) -> StreamError:
    return StreamError(f"{topic}: there is no partition {partition}", f"they are 0 to {partitions - 1}", "STRM021")
