"""Who gets which version is what docs/serving.md says: logs can be joined with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xxhash

from penstock import native
from penstock.serving.client import Client

SALT = "5-2026"


@pytest.fixture
def host() -> Iterator[native.Host]:
    host = native.Host("{}")
    yield host
    host.drain(0, 5)


def shares(host: native.Host, bundle: Path, weights: dict[str, float]) -> None:
    versions = {
        label: {"folder": str(bundle), "digest": label * 64, "reference": str(bundle)} for label in ("1", "2", "3")
    }
    traffic: dict[str, Any] = {"weights": weights, "live": "1", "sticky": "user", "salt": SALT}
    report = json.loads(host.apply(json.dumps({"models": {"m": {"versions": versions, "traffic": traffic}}})))
    assert report["ready"], report


def answers(host: native.Host, row: pl.DataFrame, users: range) -> dict[int, str]:
    with Client(f"http://{host.addresses[0]}") as client:
        return {user: client.infer("m", row.with_columns(user=pl.lit(user, pl.Int64))).version for user in users}


def place(user: int) -> float:
    """As the docs tell it."""
    seed = xxhash.xxh3_64_intdigest(f"m\0{SALT}".encode())
    return xxhash.xxh3_64_intdigest(str(user).encode(), seed=seed) / 2**64


def test_a_users_version_follows_from_the_documented_place(
    host: native.Host, trained: Path, fresh: pl.DataFrame
) -> None:
    users = range(-100, 200)
    shares(host, trained / "gbdt_lr", {"1": 70, "2": 20, "3": 10})
    before = answers(host, fresh.head(1), users)
    assert before == {u: "2" if place(u) < 0.2 else "3" if place(u) >= 0.9 else "1" for u in users}
    assert set(before.values()) == {"1", "2", "3"}
    shares(host, trained / "gbdt_lr", {"1": 40, "2": 50, "3": 10})
    after = answers(host, fresh.head(1), users)
    assert after == {u: "2" if place(u) < 0.5 else "3" if place(u) >= 0.9 else "1" for u in users}


def test_a_version_in_the_url_and_a_user_who_is_null_are_answered_too(
    host: native.Host, trained: Path, fresh: pl.DataFrame
) -> None:
    shares(host, trained / "gbdt_lr", {"1": 50, "2": 50})
    with Client(f"http://{host.addresses[0]}") as client:
        assert client.infer("m", fresh.head(1), version="3").version == "3"
        nobody = fresh.head(1).with_columns(user=pl.lit(None, pl.Int64))
        assert {client.infer("m", nobody).version for _ in range(60)} == {"1", "2"}
