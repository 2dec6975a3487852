"""Redis behind TLS: a topic is what it is without, and who is not trusted is not spoken to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import DataError
from penstock.features.views import OnlineStore
from penstock.streams import StreamError, Unreachable, open_topic
from penstock.streams.faults import AddressError

from .brokers import Broker, TlsRedis
from .certificates import Certified, made
from .conftest import running


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return made(tmp_path_factory.mktemp("authority"), "Ours")


@pytest.fixture(scope="module")
def server(certified: Certified, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with running(lambda: TlsRedis(tmp_path_factory.mktemp("rediss"), certified)) as server:
        yield server


def test_a_topic_lives_behind_tls(server: TlsRedis, certified: Certified) -> None:
    address = f"{server.address}/clicks?ca={certified.ca}"
    with open_topic(address) as topic:
        assert topic.append([b"a", b"b"], keys=[b"k", None]) == {0: 2}
        assert topic.name == f"{server.address}/clicks"
    with open_topic(address, create=False) as again:
        assert [record.value for record in again.read(0, 0).records] == [b"a", b"b"]


def test_an_authority_that_did_not_sign_is_told_at_once(server: TlsRedis, tmp_path: Path) -> None:
    other = made(tmp_path, "Others")
    for address in (f"{server.address}/clicks?ca={other.ca}", f"{server.address}/clicks"):
        with pytest.raises(StreamError, match=r"STRM020 rediss://127.*certificate is not trusted") as refused:
            open_topic(address)  # it would try for two minutes
        assert "?ca=FILE" in refused.value.hint


def test_who_does_not_speak_tls_is_told_at_once(server: TlsRedis) -> None:
    plain = server.address.replace("rediss:", "redis:")
    with pytest.raises(StreamError, match=r"STRM020 redis://127.*speaks TLS") as refused:
        open_topic(f"{plain}/clicks")
    assert "rediss://" in refused.value.hint
    with pytest.raises(DataError, match=r"VIEW021 redis: .*speaks TLS"):
        OnlineStore(f"{plain}/0", create=True).views()


@pytest.fixture
def replies() -> Iterator[Callable[[bytes], int]]:
    """Servers that are no Redis: each says one thing to whoever comes, and then nothing. Gives their ports."""
    servers = []

    def start(said: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(said)
            for there in held:
                there.close()

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_what_does_not_speak_tls_is_told_soon(
    redis: Broker, replies: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.streams.redis_tls._HANDSHAKE_S", 0.2)  # a plain Redis waits for more of a handshake
    for port in (redis.port, replies(b"HTTP/1.1 400 Bad Request\r\n\r\n")):
        with pytest.raises(StreamError, match=rf"STRM020 rediss://127.0.0.1:{port}/clicks: .*not speak TLS") as refused:
            open_topic(f"rediss://127.0.0.1:{port}/clicks")  # it would try for two minutes
        assert "redis:// is without TLS" in refused.value.hint
    with pytest.raises(Unreachable):
        open_topic(f"rediss://127.0.0.1:{replies(b'')}/clicks?timeout=1s")


def test_a_ca_without_tls_is_refused(certified: Certified) -> None:
    with pytest.raises(AddressError, match=r"STRM002 option ca is for TLS"):
        open_topic(f"redis://127.0.0.1:1/clicks?ca={certified.ca}")
