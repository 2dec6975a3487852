"""schemas/worker.json is what the classes say."""

from pathlib import Path

from penstock.engines.schema import text

SCHEMA = Path(__file__).resolve().parents[3] / "schemas" / "worker.json"


def test_the_published_schema_is_current() -> None:
    anew = 'python -c "from penstock.engines.schema import text; print(text(), end=str())" > schemas/worker.json'
    assert SCHEMA.read_text(encoding="utf-8") == text(), f"write it anew: {anew}"
