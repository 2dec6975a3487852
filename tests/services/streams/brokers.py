"""A real Kafka broker and a real Redis for tests and benchmarks: free loopback ports, folders of their own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .certificates import Certified

HERE = Path(__file__).parent
INSTALLED = HERE.parents[2] / ".make" / "services" / "kafka"
START_SECONDS = 180
INSTALL_SECONDS = 300
#: Up in a third of the time, slower for good.
_SOON_UP = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER = "4L6g3nShT-eMCtK--X86sw"
_LOG4J = """<Configuration status="warn"><Appenders><Console name="out"><PatternLayout pattern="%d %p %m%n"/></Console>
</Appenders><Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


class NotInstalled(Exception):
    """Why there can be no broker on this machine."""


def free_port() -> int:
    """One that no client is given: who tries an address again and again may connect to itself there, and a broker that
    comes back finds its port taken."""
    ports = list(range(20_000, 32_000))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise NotInstalled("no port from 20,000 to 32,000 is free")


class Broker:
    """A process that may be killed and started again on what it left. `port` stays."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"{self.name}://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(self.command(), stdout=stream, stderr=stream, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = self.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{self.name} did not start; its log:\n{said}")
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Redis(Broker):
    name = "redis"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.program = _redis_server()
        self.settings = {"appendonly": "yes", "appendfsync": "everysec", **(settings or {})}

    def command(self) -> list[str | Path]:
        given = [text for key, value in self.settings.items() for text in (f"--{key}", value)]
        return [
            self.program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            self.folder,
            *given,
        ]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as there:
                there.sendall(b"PING\r\n")
                return there.recv(5) == b"+PONG"
        except OSError:
            return False


class TlsRedis(Redis):
    """Redis that speaks TLS alone, by a certificate of `certified.ca`."""

    name = "rediss"

    def __init__(self, folder: Path, certified: Certified, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, settings)
        self.settings |= {
            "port": "0", "tls-port": str(self.port), "tls-cert-file": str(certified.certificate),
            "tls-key-file": str(certified.key), "tls-ca-cert-file": str(certified.ca), "tls-auth-clients": "no",
        }  # fmt: skip

    def is_ready(self) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), 1) as plain,
                context.wrap_socket(plain) as there,
            ):
                there.sendall(b"PING\r\n")
                return there.recv(5) == b"+PONG"
        except OSError:
            return False


class Kafka(Broker):
    """One broker that is its own controller. `settings` are added to its properties; `java`: the machine's own."""

    name = "kafka"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, java: Sequence[str] = _SOON_UP) -> None:
        super().__init__(folder)
        self.java, self.jars = java, _jars()
        control = free_port()
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{control}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{control}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "message.max.bytes": "17000000",
            "socket.request.max.bytes": "120000000",
            **(settings or {}),
        }
        self.properties = folder / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        (folder / "log4j2.xml").write_text(_LOG4J)
        self._format()

    def _format(self) -> None:
        """Makes its storage, which is the same for all and takes Java seconds: once, and then a copy."""
        kept, data = self.jars / "formatted", self.folder / "data"
        if not kept.exists():
            storage = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self.properties)]
            done = subprocess.run([*self._java(), *storage], capture_output=True, text=True, timeout=START_SECONDS)
            if done.returncode:
                raise NotInstalled(f"Kafka's storage cannot be made: {(done.stdout + done.stderr)[-500:]}")
            aside = Path(tempfile.mkdtemp(dir=self.jars))
            shutil.copytree(data, aside / "data")
            with contextlib.suppress(OSError):  # another process was faster
                (aside / "data").rename(kept)
            shutil.rmtree(aside)
        else:
            shutil.copytree(kept, data)

    def _java(self) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}"
        return ["java", *self.java, log4j, "-cp", f"{self.jars}/*"]

    def command(self) -> list[str | Path]:
        return [*self._java(), "kafka.Kafka", self.properties]

    def is_ready(self) -> bool:
        """It has answered what its topics are: its port opens before that."""
        import confluent_kafka.admin

        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                pass
        except OSError:
            time.sleep(0.2)
            return False
        settings = {"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0, "error_cb": lambda error: None}
        try:
            return bool(confluent_kafka.admin.AdminClient(settings).list_topics(timeout=2).brokers)
        except confluent_kafka.KafkaException:
            return False


def _redis_server() -> str:
    """Redis's program; Debian's package is installed where it is missing and this is root. Raises `NotInstalled`."""
    found = shutil.which("redis-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # Runlevel 1: no service of the machine's own is started.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-server"]
        INSTALLED.mkdir(parents=True, exist_ok=True)
        with (INSTALLED / ".lock").open("w") as lock, contextlib.suppress(subprocess.TimeoutExpired):
            fcntl.flock(lock, fcntl.LOCK_EX)
            for command in ([], ["apt-get", "update", "-qq"]):  # the lists may be too old, or not there
                if shutil.which("redis-server") is None:
                    if command:
                        subprocess.run(command, env=environment, capture_output=True, timeout=INSTALL_SECONDS)
                    subprocess.run(install, env=environment, capture_output=True, timeout=INSTALL_SECONDS)
        found = shutil.which("redis-server")
    if found is None:
        raise NotInstalled("redis-server is not installed (apt install redis-server)")
    return found


def _jars() -> Path:
    """Kafka's jars, fetched once for this pom. Raises `NotInstalled`."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise NotInstalled(f"Kafka needs {program}, which is not installed")
    recipe = HERE / "pom.xml"
    folder = INSTALLED / hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / ".lock").open("w") as lock:  # several test processes may come at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            aside = INSTALLED / f".{folder.name}"
            shutil.rmtree(aside, ignore_errors=True)
            command = [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(recipe),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={aside}",
            ]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise NotInstalled(f"mvn did not end within {INSTALL_SECONDS} s") from error
            if done.returncode:
                raise NotInstalled(f"mvn failed: {(done.stdout + done.stderr).strip()[-500:]}")
            aside.rename(folder)
    return folder
