"""Somebody means ill, or everything goes wrong at once: the host says what is wrong, and goes on serving the others."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import ipaddress
import json
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import penstock.models
from penstock.registry import Registry
from penstock.serving.client import Client, ServingError
from penstock.serving.grpc_client import GrpcClient
from penstock.serving.releases import open_releases

from .conftest import models, sample
from .faults import INFER, LENGTH, ROWS, Fault, body, tensor
from .hosts import Host, running
from .test_against_triton import send

#: Of requests and of waits: somebody else may have the machine.
PATIENCE_S = 60.0
STEADY = "\n[host]\ndrain_s = 0\naliases_every_s = 0.3\n"


def until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


def told(host: Host, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in host.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def asked(address: str, data: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    status, said = send(address, Fault("", data, 0, headers=dict(headers or {})))
    return status, json.loads(said)


def resident(host: Host) -> int:
    process = psutil.Process(host.pid)
    return int(sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))


# --- requests ---


def test_nan_null_and_a_column_left_out_are_one_and_the_same(serving_host: Host) -> None:
    def scores(**changed: Any) -> list[float]:
        status, said = asked(serving_host.http, body(tensor("price", **changed)))
        assert status == 200, said
        found: list[float] = said["outputs"][0]["data"]
        return found

    whole = json.loads(body())
    without = [each for each in whole["inputs"] if each["name"] != "price"]
    status, said = asked(serving_host.http, json.dumps({"inputs": without}).encode())
    left_out = said["outputs"][0]["data"]
    assert status == 200 and scores(data=[None, None]) == left_out == scores(data=[float("nan"), None])
    assert scores() != left_out


def test_a_category_that_nobody_has_seen_is_scored(serving_host: Host) -> None:
    status, said = asked(serving_host.http, body(tensor("city", data=["", "Atlantis \U0001f419" * 1000])))
    assert status == 200 and all(0 < score < 1 for score in said["outputs"][0]["data"])


def test_a_million_rows_are_refused_at_both_doors_and_take_no_memory(serving_host: Host) -> None:
    rows = 1_000_000
    blob = np.zeros(rows, np.int64).tobytes()
    one = {"name": "user", "datatype": "INT64", "shape": [rows], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one]}).encode()
    before = resident(serving_host)
    for _ in range(3):
        status, said = asked(serving_host.http, head + blob, {LENGTH: str(len(head))})
        assert status == 413 and "user" in said["error"] and "100000" in said["error"].replace(",", ""), said
    text = json.dumps({"inputs": [{"name": "user", "datatype": "INT64", "shape": [rows], "data": [1] * rows}]})
    assert asked(serving_host.http, text.encode())[0] == 413
    client = GrpcClient(serving_host.grpc)
    with pytest.raises(ServingError) as refused:
        client.infer("judged", {"user": np.zeros(rows, np.int64)})
    client.close()
    assert refused.value.status == 429, "RESOURCE_EXHAUSTED"
    assert resident(serving_host) - before < 128 << 20


def test_what_unpacks_to_more_than_a_body_may_hold_is_not_unpacked(serving_host: Host) -> None:
    before = resident(serving_host)
    bomb = gzip.compress(b" " * (256 << 20), 1)
    status, said = asked(serving_host.http, bomb, {"Content-Encoding": "gzip"})
    assert status == 413 and set(said) == {"error"}
    assert resident(serving_host) - before < 192 << 20, "64 MB is what a body may have"


def test_an_output_into_shared_memory_is_not_served(serving_host: Host) -> None:
    wanted = {"name": "score", "parameters": {"shared_memory_region": "m", "shared_memory_byte_size": 8}}
    status, said = asked(serving_host.http, body(outputs=[wanted]))
    assert status == 501 and "shared memory" in said["error"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "a" * 10_000, "ctr%0d%0aX: y"])
def test_a_name_that_is_a_path_is_a_name_that_nobody_has(serving_host: Host, name: str) -> None:
    host, _, port = serving_host.http.rpartition(":")
    message = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    status = raw(host, int(port), message.encode())
    assert status in (400, 404, 414), status


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ("Content-Length: -1", b"{}"),
        ("Content-Length: 18446744073709551616", b"{}"),
        ("Content-Length: 2\r\nContent-Length: 3", b"{}"),
        ("Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"ffffffffffffffff\r\n{}"),
        ("X: " + "y" * 1_000_000, b""),
    ],
    ids=["negative", "beyond 64 bits", "two lengths", "a chunk of no size", "an endless chunk", "a head without end"],
)
def test_http_that_lies_is_refused_or_hung_up_on(serving_host: Host, head: str, rest: bytes) -> None:
    host, _, port = serving_host.http.rpartition(":")
    status = raw(host, int(port), f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + rest, hang_up=True)
    assert status is None or 400 <= status < 500, status
    assert asked(serving_host.http, body())[0] == 200


def raw(host: str, port: int, message: bytes, hang_up: bool = False) -> int | None:
    """The status of the reply; None: the connection was closed without one."""
    with socket.create_connection((host, port), 10) as connection:
        try:
            connection.sendall(message)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            line = connection.makefile("rb").readline()
        except TimeoutError:
            raise
        except OSError:  # reset while it was sent, or gone before it was shut
            return None
    return int(line.split()[1]) if line else None


# --- versions that are not whole ---


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def relisted(folder: Path, name: str) -> None:
    """The manifest vouches for the file as it is now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / name).read_bytes()
    manifest["files"][name] = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def break_plan(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "plan": "0" * 64}))


def break_trees(folder: Path) -> None:
    flipped(folder / "trees.txt")


def cut_trees(folder: Path) -> None:
    (folder / "trees.txt").write_bytes((folder / "trees.txt").read_bytes()[:-100])


def rubbish_in_place_of_trees(folder: Path) -> None:
    (folder / "trees.txt").write_bytes(b"tree\n" * 100)
    relisted(folder, "trees.txt")


BROKEN = {
    "plan": (break_plan, "its feature plan is not the one it was trained with"),
    "flipped": (break_trees, "trees.txt is not the file that was written with it"),
    "cut": (cut_trees, r"trees.txt has"),
    "rubbish": (rubbish_in_place_of_trees, "cannot be served: its trees"),
}


def test_versions_that_are_not_whole_are_refused_by_name_and_live_goes_on(bundles: Path, tmp_path: Path) -> None:
    text = f'[models.judged.versions]\n1 = "{bundles}/1"\n[models.judged.traffic]\n1 = 100\n{STEADY}'
    with running(tmp_path, text) as host, Client(f"http://{host.http}", retries=0, timeout_s=PATIENCE_S) as client:
        for name, (break_it, said) in BROKEN.items():
            folder = Path(shutil.copytree(bundles / "2", tmp_path / name))
            break_it(folder)
            traffic = f'{name} = "{folder}"\n[models.judged.traffic]\n1 = 40\n{name} = 60'
            (tmp_path / "serving.toml").write_text(text.replace("[models.judged.traffic]\n1 = 100", traffic))
            until(lambda: any(e["version"] == name and e["state"] == "failed" for e in told(host, "version")))  # noqa: B023
            [why] = {e["reason"] for e in told(host, "version") if e["version"] == name and e["state"] == "failed"}
            assert said in why
            assert {client.infer("judged", sample(3, n)).version for n in range(20)} == {"1"}
            assert not client.ready(), "who rolls this out is to see that it did not work"
        (tmp_path / "serving.toml").write_text(text)
        until(client.ready)


# --- a canary that fails ---


def gather(path: Path, entries: int, width: int = 0) -> Path:
    """A graph that looks `x` up in a table of so many entries: ONNX Runtime fails where it lies beyond.

    With `width` it also multiplies matrices of so many rows and columns, to no effect but the time it takes.
    """
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    scores = np.arange(entries, dtype=np.float32) / 1000
    constants = [
        helper.make_tensor("table", kinds.FLOAT, [entries], scores),
        helper.make_tensor("axes", kinds.INT64, [1], [1]),
    ]
    nodes = [helper.make_node("Gather", ["table", "x"], ["found"])]
    if width:
        constants.append(helper.make_tensor("row", kinds.FLOAT, [1, width], np.zeros(width, np.float32)))
        zeros = np.zeros((width, width), np.float32)
        constants.append(helper.make_tensor("square", kinds.FLOAT, zeros.shape, zeros.tobytes(), raw=True))
        nodes += [
            helper.make_node("MatMul", ["found", "row"], ["wide0"]),
            *(helper.make_node("MatMul", [f"wide{n}", "square"], [f"wide{n + 1}"]) for n in range(8)),
            helper.make_node("ReduceMax", ["wide8"], ["nothing"], axes=[1], keepdims=1),
            helper.make_node("Add", ["found", "nothing"], ["sum"]),
        ]
    nodes.append(helper.make_node("Squeeze", ["sum" if width else "found", "axes"], ["score"]))
    inputs = [helper.make_tensor_value_info("x", kinds.INT64, ["rows", 1])]
    outputs = [helper.make_tensor_value_info("score", kinds.FLOAT, ["rows"])]
    graph = helper.make_graph(nodes, "gather", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def gathering(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with gather/1, which scores any x below 1000, gather/2, which fails from 950 on, and a slow third."""
    folder = tmp_path_factory.mktemp("gathering")
    registry = str(folder / "registry")
    rows = {"x": np.arange(0, 900, 30).reshape(-1, 1)}
    for entries, width in ((1000, 0), (950, 0), (1000, 1024)):
        penstock.models.push("gather", gather(folder / "model.onnx", entries, width), rows=rows, registry=registry)
    return registry


@pytest.fixture
def canaried(gathering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PENSTOCK_REGISTRY", gathering)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    text = '[models.gather.versions]\n1 = "models:/gather/1"\n[models.gather.traffic]\n1 = 100\n' + STEADY
    with running(tmp_path, text) as host:
        yield host


def test_a_graph_that_is_none_is_refused_by_its_file_and_live_goes_on(canaried: Host, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(penstock.models.fetch("models:/gather/1"), tmp_path / "broken"))
    [graph] = folder.glob("*.onnx")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    graph.write_bytes(graph.read_bytes()[:-200])
    relisted(folder, graph.name)
    file = tmp_path / "serving.toml"
    file.write_text(file.read_text().replace("[models.gather.traffic]", f'2 = "{folder}"\n[models.gather.traffic]'))
    until(lambda: any(e["state"] == "failed" for e in told(canaried, "version")))
    [why] = {e["reason"] for e in told(canaried, "version") if e["state"] == "failed"}
    assert graph.name in why
    with Client(f"http://{canaried.http}", retries=0, timeout_s=PATIENCE_S) as client:
        assert client.infer("gather", {"x": [7]}).version == "1"
        with pytest.raises(ServingError) as refused:
            client.infer("gather", {"x": [7]}, version="2")
        assert refused.value.status == 503


def status_of(model: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "penstock.cli", "release", "status", model]
    both = [
        subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=True).stdout
        for more in (["--json"], [])
    ]
    return json.loads(both[0]), both[1]


def test_a_canary_that_fails_five_in_a_hundred_is_taken_back_within_a_thousand_requests(
    canaried: Host, tmp_path: Path
) -> None:
    assert open_releases(tmp_path / "serving.toml").release("gather", "2", 50.0, "", False).applied
    order = np.random.default_rng(5).permutation(np.arange(4000) % 1000)
    canary, failed = 0, 0
    with Client(f"http://{canaried.http}", retries=0, timeout_s=PATIENCE_S) as client:
        for x in order:
            try:
                canary += client.infer("gather", {"x": [int(x)]}).version == "2"
            except ServingError as fault:
                assert fault.status == 500 and x >= 950, fault
                failed += 1
            if failed >= 10 and told(canaried, "rollback"):
                break
        assert failed >= 10 and canary + failed <= 1000, (canary, failed)
        after = {client.infer("gather", {"x": [int(x)]}).version for x in order[:1000]}
    assert after == {"1"}, "not one request more"
    assert_taken_back(canaried, "2", "failed")


def test_a_canary_that_is_slow_is_taken_back_and_status_says_why(canaried: Host, tmp_path: Path) -> None:
    assert open_releases(tmp_path / "serving.toml").release("gather", "3", 50.0, "", False).applied
    asked_for = 0
    with Client(f"http://{canaried.http}", retries=0, timeout_s=PATIENCE_S) as client:
        while not told(canaried, "rollback"):
            client.infer("gather", {"x": [asked_for % 1000]})
            asked_for += 1
            assert asked_for < 8000
        after = {client.infer("gather", {"x": [x]}).version for x in range(300)}
    assert after == {"1"}, "not one request more"
    assert_taken_back(canaried, "3", "longer")


def assert_taken_back(host: Host, label: str, why: str) -> None:
    """The log, `release status` and its JSON say so, and why."""
    [event] = told(host, "rollback")
    assert (event["model"], event["version"]) == ("gather", label) and why in event["why"]
    until(lambda: bool(status_of("gather")[0]["changes"][0]["what"] == f"guard took {label} back"))
    found, text = status_of("gather")
    live, back = (next(v for v in found["versions"] if v["version"] == each) for each in ("1", label))
    assert (live["role"], live["percent"], back["role"], back["percent"]) == ("live", 100, "taken back", 0)
    assert back["reason"] == event["why"]
    assert f"guard took {label} back by guard: {event['why']}" in text and "taken back" in text


def test_what_clients_do_wrong_takes_no_canary_back(canaried: Host, tmp_path: Path) -> None:
    assert open_releases(tmp_path / "serving.toml").release("gather", "2", 50.0, "", False).applied
    wrong = [
        {"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [0.5]},
        {"name": "x", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]},
        {"name": "y", "datatype": "INT64", "shape": [1, 1], "data": [1]},
        {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": []},
    ]
    with Client(f"http://{canaried.http}", retries=0, timeout_s=PATIENCE_S) as client:
        for n in range(1200):
            message = json.dumps({"inputs": [wrong[n % 4]]}).encode()
            status, got, _ = client._once("POST", "/v2/models/gather/infer", message, {}, 5)
            assert status == 400, got
        # Who names a version counts in no guard.
        assert {client.infer("gather", {"x": [n]}, version="2").version for n in range(300)} == {"2"}
        good = {client.infer("gather", {"x": [n]}).version for n in range(100)}
    assert good == {"1", "2"} and told(canaried, "rollback") == []
    found, text = status_of("gather")
    canary = found["versions"][1]
    assert canary["role"] == "canary" and canary["watched"]["failed"] == 0
    assert canary["watched"]["requests"] + canary["watched"]["live_requests"] == 100
    assert "guarded: 0 of" in text


# --- who may ---


def token(name: str, scopes: str = '["infer"]', only: str = "") -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    bound = f'models = ["{only}"]\n' if only else ""
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = {scopes}\n{bound}'


def other(bundles: Path) -> str:
    return f'[models.other.versions]\n1 = "{bundles}/1"\n'


def refusal(client: Client | GrpcClient, model: str) -> int:
    try:
        client.infer(model, sample(2, 1))
    except ServingError as fault:
        return fault.status
    return 200


def test_a_token_opens_its_own_model_alone_at_both_doors(bundles: Path, tmp_path: Path) -> None:
    with running(tmp_path, token("ads", only="judged") + models(bundles) + other(bundles) + STEADY) as host:
        url = f"http://{host.http}"
        with Client(url, token="ads", retries=0, timeout_s=PATIENCE_S) as client:
            assert [refusal(client, model) for model in ("judged", "other")] == [200, 403]
            listed = json.loads(client._ask("POST", "/v2/repository/index", b"", {}, 5)[0])
            assert {each["name"] for each in listed} == {"judged"}
            counted = json.loads(client._ask("GET", "/v2/models/stats", b"", {}, 5)[0])
            assert {each["name"] for each in counted["model_stats"]} == {"judged"}
            # A model that there is not and one that is not for this token look alike.
            assert refusal(client, "nobody") == 403
        over_grpc = GrpcClient(host.grpc, token="ads")
        assert [refusal(over_grpc, model) for model in ("judged", "other")] == [200, 403]
        over_grpc.close()


def test_tokens_come_and_go_while_the_host_runs(bundles: Path, tmp_path: Path) -> None:
    text = models(bundles) + STEADY
    file = tmp_path / "serving.toml"
    with running(tmp_path, text) as host:
        url = f"http://{host.http}"
        with (
            Client(url, retries=0, timeout_s=PATIENCE_S) as nobody,
            Client(url, token="ads", retries=0, timeout_s=PATIENCE_S) as ads,
        ):
            assert refusal(nobody, "judged") == 200
            file.write_text(token("ads") + text)
            until(lambda: refusal(nobody, "judged") == 401)
            assert refusal(ads, "judged") == 200
            file.write_text(token("search") + text)
            until(lambda: refusal(ads, "judged") == 401)
            file.write_text(token("search").replace("sha256 = ", "sha256 = 1") + text)
            until(lambda: bool(told(host, "configuration_refused")))
            assert refusal(nobody, "judged") == 401, "a file that cannot be read opens nothing"
            file.write_text(text)
            until(lambda: refusal(nobody, "judged") == 200)


def test_a_host_beyond_loopback_is_never_opened_by_taking_its_tokens_away(bundles: Path, tmp_path: Path) -> None:
    listen = '[listen]\nhttp = "0.0.0.0:0"\n'
    text = models(bundles) + STEADY
    file = tmp_path / "serving.toml"
    with running(tmp_path, listen + token("ads") + text) as host:
        url = f"http://127.0.0.1:{host.http.rpartition(':')[2]}"
        with Client(url, retries=0, timeout_s=PATIENCE_S) as nobody:
            assert refusal(nobody, "judged") == 401
            file.write_text(listen + text)
            until(lambda: bool(told(host, "configuration_refused")))
            assert "everybody could score" in told(host, "configuration_refused")[0]["problem"]
            # What it is bound to is settled when it starts, whatever the file says of it later.
            file.write_text(text)
            until(lambda: bool(told(host, "tokens_kept")))
            assert refusal(nobody, "judged") == 401
            file.write_text(listen + "insecure = true\n" + text)
            until(lambda: refusal(nobody, "judged") == 200)


# --- certificates ---


def certificates(folder: Path, **years: int) -> dict[str, Path]:
    """An authority, and by name the PEM of a certificate and its key that is valid until so many years from now."""
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "these tests")])

    def signed(
        subject: x509.Name, of: ec.EllipticCurvePrivateKey, until_year: int, authority: bool
    ) -> x509.Certificate:
        year = dt.timedelta(days=365)
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(name).public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * year).not_valid_after(now + until_year * year)
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(local, False)
            .sign(key, hashes.SHA256())
        )  # fmt: skip

    found = {"authority": folder / "authority.pem"}
    found["authority"].write_bytes(signed(name, key, 10, True).public_bytes(serialization.Encoding.PEM))
    for each, until_year in years.items():
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
        found[each] = folder / f"{each}.pem"
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = signed(subject, own, until_year, False).public_bytes(serialization.Encoding.PEM)
        found[each].write_bytes(certificate + own.private_bytes(*plain))
    return found


def test_expired_certificates_are_turned_away_on_either_side(bundles: Path, tmp_path: Path) -> None:
    pems = certificates(tmp_path, host=1, client=1, late=-1)
    tls = '[tls]\ncertificate = "host.pem"\nkey = "host.pem"\nclient_ca = "authority.pem"\n'
    with running(tmp_path, tls + models(bundles) + STEADY) as host:
        url = f"https://{host.http}"

        def shows(name: str) -> int:
            context = ssl.create_default_context(cafile=str(pems["authority"]))
            if name:
                context.load_cert_chain(pems[name])
            with Client(url, tls=context, retries=0, timeout_s=PATIENCE_S) as client:
                return refusal(client, "judged")

        assert [shows(name) for name in ("client", "late", "")] == [200, 0, 0]
        assert shows("client") == 200
    config = tmp_path / "expired.toml"
    config.write_text(tls.replace("host.pem", "late.pem") + models(bundles))
    command = [sys.executable, "-m", "penstock.cli", "serve", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "late.pem" in done.stderr and "renew it" in done.stderr, done.stderr
    assert done.stdout == ""


# --- a registry that goes away ---


def test_a_host_lives_through_the_loss_of_the_registry_and_a_restart(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, away = tmp_path / "registry", tmp_path / "away"
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(registry))
    monkeypatch.setenv("PENSTOCK_MODEL_CACHE", str(tmp_path / "cache"))
    with Registry(registry) as opened:
        first, second = (opened.push(bundles / name, "ctr") for name in ("1", "2"))
        opened.alias(first.uri, "live")
    text = f'[models.ctr.versions]\n1 = "models:/ctr@live"\n{STEADY}'
    rows = sample(3, 1)
    with running(tmp_path, text) as host, Client(f"http://{host.http}", retries=0, timeout_s=PATIENCE_S) as client:
        registry.rename(away)
        lost = time.monotonic() + 1.5  # several looks at what `live` means
        while time.monotonic() < lost:
            assert client.infer("ctr", rows).bundle == first.digest
        assert client.ready()
    with running(tmp_path, text) as host, Client(f"http://{host.http}", retries=0, timeout_s=PATIENCE_S) as client:
        assert client.infer("ctr", rows).bundle == first.digest, "started without a registry"
        away.rename(registry)
        with Registry(registry) as opened:
            opened.alias(second.uri, "live")
        until(lambda: client.infer("ctr", rows).bundle == second.digest)


def test_two_numbers_of_a_binary_body_may_be_anything(serving_host: Host) -> None:
    """Every size and every header length around the true ones: refused, or scored; never a fault of ours."""
    whole = struct.pack("<2q", 1, 2)
    for size in (0, 1, 15, 16, 17, 2**31, 2**32, 2**63 - 1, 2**64 - 1, -(2**63)):
        user = {"name": "user", "datatype": "INT64", "shape": [ROWS, 1], "parameters": {"binary_data_size": size}}
        head = body(user)
        for length in (0, 1, len(head) - 1, len(head), len(head) + 1, 2**63, 2**64):
            status, said = asked(serving_host.http, head + whole, {LENGTH: str(length)})
            right = size == 16 and length == len(head)
            assert status == 200 if right else 400 <= status < 500, (size, length, status, said)
