"""A serving configuration is read whole, or refused with every problem it has, on its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.data.toml_lines import lines_of
from penstock.errors import ProblemsFound
from penstock.serving.config import read
from penstock.serving.desired import Resolved, desired
from penstock.serving.overrides import intended

WHOLE = """
[listen]
http = "127.0.0.1:0"        # a free one
[[tokens]]
name = "ranker"
sha256 = "HASH"
scopes = ["infer", "metrics"]
[models.ctr]
optional = true
[models.ctr.versions]
1 = "out/model"
2 = "models:/ctr@canary"
[models.ctr.traffic]
1 = 90
2 = 10
sticky = "user_id"
[models.ctr.guards]
latency = false
""".replace("HASH", "a" * 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serving.toml"


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(ProblemsFound) as found:
        read(file)
    return [f"{p.line}: {p.code} {p.message}" for p in found.value.problems]


def test_what_is_not_said_has_its_default(file: Path) -> None:
    file.write_text(WHOLE)
    config = read(file)
    model = config.document.models["ctr"]
    assert model.traffic == {"1": 90.0, "2": 10.0} and model.sticky == "user_id"
    assert model.guards.latency is False and model.guards.error_rate == 0.01
    assert config.document.listen.grpc == "127.0.0.1:0"
    assert config.state_dir == file.parent / ".penstock-serve" / "serving"
    assert config.at("out/model") == file.parent / "out" / "model"


def test_rows_come_into_memory_unless_what_models_hold_is_bounded(file: Path) -> None:
    def rows_bytes(limits: str, own: str = "") -> int | None:
        file.write_text(WHOLE.replace("[models.ctr.versions]", f"{limits}\n{own}\n[models.ctr.versions]"))
        found: int | None = json.loads(desired(read(file), {}, Resolved(), {}))["models"]["ctr"]["limits"]["rows_bytes"]
        return found

    assert rows_bytes("") is None
    assert rows_bytes("[limits]\nmemory_mb = 100") == 0
    assert rows_bytes("[limits]\nmemory_mb = 100", "[models.ctr.limits]\nrows_mb = 50") == 50 << 20


def test_the_highest_version_gets_all_where_no_traffic_is_given(file: Path) -> None:
    file.write_text('[models.m.versions]\n9 = "a"\n10 = "b"\nold = "c"\n')
    release = intended(read(file).document.models["m"])
    assert release.traffic == {"10": 100.0} and release.live == "10"


def test_impressions_go_to_a_log_beside_the_file(file: Path) -> None:
    file.write_text(WHOLE + '[impressions]\ntopic = "log:imp?partitions=4&retention=7d"\nack = "synced"\n')
    made = json.loads(desired(read(file), {}, Resolved(), {}))["impressions"]
    assert (made["path"], made["partitions"], made["ack"]) == (str(file.parent / "imp"), 4, "synced")
    assert (made["retention_ms"], made["sync_ms"], made["tick_ms"]) == (7 * 86_400_000, 50, 100)


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("kafka://h:1/t", "hosts append to log:PATH"),
        ("log:imp?partitions=0", "it must be a number from 1 to 1024"),
        ("log:imp?backlog=10&backlog_of=j", "a host does not wait for readers"),
        ("log:imp?ack=none", "says ack in a line of its own"),
    ],
)
def test_a_topic_that_a_host_cannot_append_to_is_refused_on_its_line(file: Path, topic: str, said: str) -> None:
    (problem,) = problems(file, WHOLE + f'[impressions]\ntopic = "{topic}"\n')
    line = WHOLE.count("\n") + 2
    assert problem.startswith(f"{line}: SERV003 impressions.topic = '{topic}'") and said in problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("optional", "optinal", "9: SERV002 'models.ctr.optinal' is no setting"),
        ("127.0.0.1:0", "127.0.0.1:x", "3: SERV003 listen.http = '127.0.0.1:x'"),
        ('"a' + "a" * 63, '"zz', "6: SERV003 tokens.0.sha256 = 'zz"),
        ('"metrics"', '"root"', "7: SERV003 tokens.0.scopes.1 = 'root'"),
        ("2 = 10", "2 = 20", "13: SERV005 the traffic of 'ctr' sums to 110, not 100"),
        ("2 = 10", "3 = 10", "15: SERV005 '3' gets traffic and is none of the versions of 'ctr'"),
        ("latency = false", 'latency = "often"', "18: SERV003 models.ctr.guards.latency = 'often'"),
        ("models.ctr]", 'models."c t r"]', "SERV003 'c t r' is not a name"),
        ("[listen]", "[listen", "2: SERV001 it cannot be read"),
    ],
)
def test_a_fault_is_one_problem_on_its_line(file: Path, old: str, new: str, said: str) -> None:
    text = WHOLE.replace(old, new)
    if '"c t r"' in new:
        text = '[models."c t r".versions]\n1 = "a"\n'
    found = problems(file, text)
    assert len(found) == 1 and said in found[0], found


def test_all_faults_are_told_at_once(file: Path) -> None:
    found = problems(file, WHOLE.replace("optional", "optinal").replace("2 = 10", "2 = 20").replace("127.0.0.1:0", "x"))
    assert [line.split()[1] for line in found] == ["SERV003", "SERV002"]  # sums are judged once the shape is right


def test_a_file_that_is_not_there_is_said_so(file: Path) -> None:
    with pytest.raises(ProblemsFound, match="No such file"):
        read(file)


def test_lines_are_those_of_keys_in_any_form() -> None:
    lines = lines_of(
        'a = 1\n[b]\nc = [\n  1,\n  2,\n]\nd.e = "x"\n[[f]]\ng = 1\n[[f]]\ng = 2\n[h."i.j"]\nk = {l = 1}\n'
    )
    assert lines[("a",)] == 1 and lines[("b", "c")] == 3 and lines[("b", "d", "e")] == 7
    assert lines[("f", 1, "g")] == 11 and lines[("h", "i.j", "k", "l")] == 13


@pytest.mark.parametrize("address", ["0.0.0.0:1", "10.1.2.3:1", "[::]:1", "[2001:db8::1]:1"])
def test_an_address_that_everybody_reaches_needs_tokens_or_says_that_it_means_it(file: Path, address: str) -> None:
    model = '[models.m.versions]\n1 = "a"\n'
    found = problems(file, f'[listen]\ngrpc = "{address}"\n{model}')
    assert len(found) == 1 and found[0].startswith("2: SERV003") and "everybody could score" in found[0]
    token = f'[[tokens]]\nname = "a"\nsha256 = "{"0" * 64}"\n'
    for allowed in (f'{token}[listen]\ngrpc = "{address}"\n', f'[listen]\ngrpc = "{address}"\ninsecure = true\n'):
        file.write_text(allowed + model)
        assert read(file).document.listen.grpc == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback_needs_none(file: Path, address: str) -> None:
    file.write_text(f'[listen]\nhttp = "{address}"\n[models.m.versions]\n1 = "a"\n')
    assert read(file).document.listen.http == address


def test_a_chain_that_cannot_be_followed_is_told_by_its_line(tmp_path: Path) -> None:
    text = '[models.m.versions]\n1 = "b"\n[models.m.live]\ntopic = "chain"\nversion = "2"\nmax_lag_s = 0\nlagg = 1\n'
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ProblemsFound) as found:
        read(tmp_path / "s.toml")
    assert [(p.line, p.code) for p in found.value.problems] == [(6, "SERV003"), (7, "SERV002")]
    (tmp_path / "s.toml").write_text(text.replace("max_lag_s = 0\nlagg = 1\n", ""))
    with pytest.raises(ProblemsFound) as found:
        read(tmp_path / "s.toml")
    assert [(p.line, p.code) for p in found.value.problems] == [(4, "SERV003"), (5, "SERV005")]
