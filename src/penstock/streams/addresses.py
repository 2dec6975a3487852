"""Addresses of topics: `log:PATH`, `kafka://HOST:PORT[,HOST:PORT]/TOPIC`, `redis://[USER:PASSWORD@]HOST:PORT/TOPIC`."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from penstock.errors import did_you_mean

from .faults import AddressError
from .settings import settings
from .topic import Topic

_SCHEMES = ("log", "kafka", "redis", "rediss")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_FORMS = "log:PATH, kafka://HOST:PORT/TOPIC or redis://HOST:PORT/TOPIC"


def open_topic(address: str, *, create: bool = True) -> Topic:
    """Open a topic; make it where there is none and `create` says so.

    Raises `AddressError` (STRM001 to STRM005) for an address that names no topic, `Unreachable` where nobody answers,
    other `StreamError` for what is there and cannot be used.
    """
    scheme, colon, _ = address.partition(":")
    if not colon or scheme not in _SCHEMES:
        hint = did_you_mean(scheme, _SCHEMES, _FORMS) if colon else _FORMS
        raise AddressError(f"'{without_secrets(address)}' is no address of a topic", hint, "STRM001")
    rest, _, query = address.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs):
        raise AddressError(f"'{without_secrets(address)}' says an option twice", "say each once", "STRM002")
    if scheme == "log":
        from .log import LogTopic

        path = unquote(rest[len("log:") :])
        if not path:
            raise AddressError(f"'{address}' names no folder", _FORMS, "STRM001")
        return LogTopic(path, settings("log", given), create)
    backend = "kafka" if scheme == "kafka" else "redis"
    parts = urlsplit(rest)
    topic = unquote(parts.path.strip("/"))
    if not parts.netloc or not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        said = without_secrets(rest)
        hint = f"{scheme}://HOST:PORT/TOPIC, a topic of letters, digits, '.', '_' and '-'"
        raise AddressError(f"'{said}' names no topic", hint, "STRM001")
    chosen = settings(backend, given)
    if backend == "kafka":
        from .kafka import KafkaTopic

        return KafkaTopic(parts.netloc, topic, chosen, create)
    from .redis import RedisTopic

    if chosen.ca and scheme == "redis":
        raise AddressError("option ca is for TLS, and redis:// is without", "rediss://HOST:PORT/TOPIC", "STRM002")
    return RedisTopic(f"{scheme}://{parts.netloc}", topic, chosen, create)


def without_secrets(address: str) -> str:
    """An address as messages show it: no user, no password, no options."""
    return re.sub(r"//[^/@]*@", "//***@", address.partition("?")[0])
