"""Clients that others wrote call everything that they have; scores are those of `predict`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from penstock.training.bundle import load

from .conftest import sample
from .hosts import Host

JUDGES = Path(__file__).resolve().parent / "judges"
ROWS = 50
#: Raw columns and the datatypes that stand for them.
DATATYPES = {"user": "INT64", "city": "BYTES", "price": "FP64", "member": "BOOL", "at": "INT64", "tags": "BYTES"}
BROADCAST = ("user", "city")
Calls = dict[str, Any]


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    return sample(ROWS, 2).drop("label")


@pytest.fixture(scope="session")
def question(rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Host], Path]:
    def write(host: Host) -> Path:
        plain = rows.with_columns(pl.col("at").cast(pl.Int64), pl.col("tags").map_elements(as_json, pl.String))
        columns = {name: {"datatype": kind, "values": plain[name].to_list()} for name, kind in DATATYPES.items()}
        path = tmp_path_factory.mktemp("question") / "question.json"
        asked = {"model": "judged", "version": "1", "rows": ROWS, "columns": columns, "broadcast": list(BROADCAST)}
        path.write_text(json.dumps({**asked, "token": host.token}))
        return path

    return write


def as_json(tags: Any) -> str:
    return json.dumps(list(tags))


@pytest.fixture(scope="session")
def ask(question: Callable[[Host], Path], environment: Callable[[str], Path]) -> Callable[[str, str, Host], Calls]:
    def run(client: str, script: str, host: Host) -> Calls:
        command = [environment(client), JUDGES / script, host.http, host.grpc, question(host)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\n{host.log.read_text(errors='replace')[-2000:]}"
        found: Calls = json.loads(done.stdout)
        return found

    return run


@pytest.fixture(scope="session")
def triton_http(ask: Callable[[str, str, Host], Calls], guarded_host: Host) -> Calls:
    return ask("triton", "triton_http.py", guarded_host)


@pytest.fixture(scope="session")
def triton_grpc(ask: Callable[[str, str, Host], Calls], guarded_host: Host) -> Calls:
    return ask("triton", "triton_grpc.py", guarded_host)


@pytest.fixture(scope="session")
def kserve(ask: Callable[[str, str, Host], Calls], guarded_host: Host) -> Calls:
    return ask("kserve", "kserve_client.py", guarded_host)


@pytest.fixture
def triton(request: pytest.FixtureRequest) -> Calls:
    """What the client named by the parameter found."""
    found: Calls = request.getfixturevalue(f"triton_{request.param}")
    return found


both = pytest.mark.parametrize("triton", ["http", "grpc"], indirect=True)


@pytest.fixture(scope="session")
def expected(bundles: Path, rows: pl.DataFrame) -> dict[str, Any]:
    """Version -> the offline scores of the rows; `broadcast`: with the first row's user and city everywhere."""
    alone = rows.with_columns(pl.lit(rows[name][0], dtype=rows[name].dtype).alias(name) for name in BROADCAST)
    found = {version: load(bundles / version).score(rows) for version in ("1", "2")}
    return {**found, "broadcast": load(bundles / "2").score(alone)}


def value(calls: Calls, name: str) -> Any:
    assert "value" in calls[name], f"{name}: {calls[name]}"
    return calls[name]["value"]


def status(calls: Calls, name: str) -> str:
    assert "error" in calls[name], f"{name}: {calls[name]}"
    return str(calls[name]["error"]["status"]).removeprefix("StatusCode.")


def assert_scores(found: Any, wanted: Any, version: str | None) -> None:
    np.testing.assert_allclose(np.array(found["scores"]).reshape(-1), wanted, rtol=1e-6, atol=1e-6)
    assert found["version"] == version


@both
def test_health_and_readiness(triton: Calls) -> None:
    assert all(value(triton, name) for name in ("live", "ready", "model_ready", "version_ready"))
    assert value(triton, "unknown_ready") is False
    assert value(triton, "unknown_version_ready") is False


@both
def test_metadata_names_the_raw_columns(triton: Calls) -> None:
    assert value(triton, "server_metadata")["name"] == "penstock"
    metadata = value(triton, "metadata")
    assert metadata["name"] == "judged" and sorted(metadata["versions"]) == ["1", "2"]
    assert {column["name"]: column["datatype"] for column in metadata["inputs"]} == DATATYPES
    assert [(o["name"], o["datatype"]) for o in metadata["outputs"]] == [("score", "FP32")]
    assert all(int(each["shape"][0]) == -1 for each in (*metadata["inputs"], *metadata["outputs"]))
    assert value(triton, "version_metadata")["name"] == "judged"
    assert status(triton, "unknown_metadata") in ("404", "NOT_FOUND")


@both
def test_configuration_index_and_statistics(triton: Calls) -> None:
    config = value(triton, "config")
    config = config.get("config", config)
    assert config["name"] == "judged"
    types = {"BYTES": "TYPE_STRING"}
    assert {column["name"]: column["data_type"] for column in config["input"]} == {
        name: types.get(kind, f"TYPE_{kind}") for name, kind in DATATYPES.items()
    }
    index = value(triton, "index")
    index = index["models"] if isinstance(index, dict) else index
    assert sorted((each["name"], each["version"], each["state"]) for each in index) == [
        ("judged", "1", "READY"),
        ("judged", "2", "READY"),
    ]
    of_both = {each["version"]: each for each in value(triton, "all_statistics")["model_stats"]}
    assert set(of_both) == {"1", "2"}
    [of_one] = value(triton, "version_statistics")["model_stats"]
    assert int(of_one["inference_count"]) >= ROWS
    assert int(of_one["inference_stats"]["success"]["count"]) >= 1
    assert {each["version"] for each in value(triton, "statistics")["model_stats"]} == {"1", "2"}


@both
def test_every_form_of_infer_gives_the_offline_scores(triton: Calls, expected: dict[str, Any]) -> None:
    forms = [name for name in triton if name.startswith("infer") and "value" in triton[name]]
    plain = [name for name in forms if name not in ("infer_version", "infer_broadcast")]
    assert len(plain) >= 7
    for name in plain:
        assert_scores(value(triton, name), expected["2"], "2")
        assert value(triton, name)["outputs"] == [["score", "FP32", [ROWS]]]
        assert value(triton, name)["bundle"]
    assert_scores(value(triton, "infer_version"), expected["1"], "1")
    assert value(triton, "infer_version")["bundle"] != value(triton, plain[0])["bundle"]
    assert_scores(value(triton, "infer_broadcast"), expected["broadcast"], "2")
    assert value(triton, "infer_id")["id"] == "an id"


@both
def test_requests_in_flight_together_keep_their_ids(triton: Calls, expected: dict[str, Any]) -> None:
    found = value(triton, "async_infer")
    assert sorted(int(each["id"]) for each in found) == list(range(8))
    for each in found:
        assert_scores(each, expected["2"], "2")


def test_json_and_binary_compressed_or_not_are_all_served(triton_http: Calls) -> None:
    forms = {f"infer_{a}_{b}" for a in ("json", "binary") for b in (None, False, True)}
    forms |= {"infer_gzip", "infer_deflate", "infer_json_gzip", "infer_json_deflate", "infer_two_dimensions"}
    assert not [name for name in forms if "value" not in triton_http[name]]


def test_grpc_takes_compressed_messages(triton_grpc: Calls) -> None:
    assert all("value" in triton_grpc[name] for name in ("infer_gzip", "infer_deflate", "infer_two_dimensions"))


@both
def test_faults_of_a_request_are_named(triton: Calls) -> None:
    assert status(triton, "infer_unknown_version") in ("404", "NOT_FOUND")
    assert status(triton, "infer_unknown_output") in ("400", "INVALID_ARGUMENT")
    assert "nothing" in triton["infer_unknown_output"]["error"]["message"]
    assert status(triton, "infer_too_late") in ("504", "DEADLINE_EXCEEDED")


@both
def test_what_is_not_served_says_so(triton: Calls) -> None:
    names = [name for name in triton if name.startswith(("trace", "log", "system_memory", "cuda_memory"))]
    assert len(names) == 10
    for name in [*names, "infer_shared_memory", "infer_sequence", *(["stream"] if "stream" in triton else [])]:
        assert status(triton, name) in ("501", "UNIMPLEMENTED"), name


@both
def test_models_are_unloaded_and_loaded_but_never_from_a_request(triton: Calls, expected: dict[str, Any]) -> None:
    for name in ("load_with_file", "load_with_config"):
        assert status(triton, name) in ("400", "INVALID_ARGUMENT")
    assert "error" not in triton["unload"] and "error" not in triton["load"]
    assert value(triton, "unloaded_ready") is False
    assert status(triton, "unloaded_infer") in ("503", "UNAVAILABLE")
    assert_scores(value(triton, "loaded_infer"), expected["2"], "2")
    assert status(triton, "load_unknown") in ("404", "NOT_FOUND")


@pytest.mark.parametrize("door", ["rest", "grpc"])
def test_kserve_clients_are_served(kserve: Calls, expected: dict[str, Any], door: str) -> None:
    calls = {name.removeprefix(f"{door}."): found for name, found in kserve.items() if name.startswith(door)}
    assert all(value(calls, name) for name in ("live", "ready", "model_ready"))
    scored = [name for name in calls if name.startswith("infer") and "unknown" not in name]
    assert len(scored) >= 6
    for name in scored:
        wanted = {"infer_version": "1", "infer_broadcast": "broadcast"}.get(name, "2")
        # KServe's reader of REST replies leaves the version out.
        version = None if door == "rest" else "1" if wanted == "1" else "2"
        assert_scores(value(calls, name), expected[wanted], version)
    assert value(calls, "infer_id")["id"] == "an id"
    assert status(calls, "infer_unknown_model") in ("404", "NOT_FOUND")


def test_kserve_is_told_of_faults(kserve: Calls) -> None:
    assert value(kserve, "rest.unknown_ready") is False and value(kserve, "grpc.unknown_ready") is False
    assert status(kserve, "rest.infer_unknown_output") == "400"
    assert status(kserve, "grpc.infer_unknown_version") == "NOT_FOUND"


def test_without_tokens_nobody_administrates(ask: Callable[[str, str, Host], Calls], serving_host: Host) -> None:
    for script, refused in (("triton_http.py", "403"), ("triton_grpc.py", "PERMISSION_DENIED")):
        calls = ask("triton", script, serving_host)
        assert {status(calls, name) for name in ("load", "unload", "load_unknown")} == {refused}
        assert value(calls, "model_ready") is True


def test_a_wrong_token_is_turned_away(
    ask: Callable[[str, str, Host], Calls], guarded_host: Host, expected: dict[str, Any]
) -> None:
    wrong = Host(guarded_host.http, guarded_host.grpc, "another", guarded_host.pid, guarded_host.log)
    for script, name in (("triton_http.py", "infer_binary_None"), ("triton_grpc.py", "infer")):
        calls = ask("triton", script, wrong)
        assert value(calls, "live") is True
        assert {status(calls, each) for each in (name, "metadata", "config", "index", "unload", "all_statistics")} <= {
            "401",
            "UNAUTHENTICATED",
        }
