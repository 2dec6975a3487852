"""The outputs that write files, each the twin of an input, and `print`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import ROLES_KEY, Schema
from penstock.operators.base import Names, Output, RunContext

if TYPE_CHECKING:
    import polars as pl


class FileOutput(Output):
    """What all of them share: one file by suffix, else a folder; partitions; the twin that reads it back."""

    partition_by: Names = Field((), description="columns that become name=value folders; the path is then a folder")

    def folder(self) -> bool:
        """One file where the path ends in the format's suffix or there is no path; else a folder."""
        return bool(self.partition_by) or (bool(self.path) and super().folder())

    def twin(self) -> Mapping[str, str]:
        return {"type": self.type}

    def file(self, target: Path) -> Path:
        """The one file to write: the target itself, or the first part in the folder."""
        return target / f"part-00000{self.suffix}" if target.is_dir() else target


class ParquetOutput(FileOutput):
    """Write Parquet. Types, nulls and roles are kept."""

    type: ClassVar[str] = "parquet"
    example: ClassVar[str] = '<output name="train" type="parquet" from="kept" path="out/train"/>'
    suffix: ClassVar[str | None] = ".parquet"

    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = Field(
        "zstd", description="how pages are compressed"
    )

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        import polars as pl

        info = context.info(self.from_)
        roles = info.roles_json() if isinstance(info, Schema) else ""
        place: Any = self.file(target)
        if self.partition_by:
            place = pl.PartitionBy(target, key=list(self.partition_by), include_key=False)
        sink: pl.LazyFrame = value.sink_parquet(
            place,
            compression="uncompressed" if self.compression == "none" else self.compression,
            metadata={ROLES_KEY: roles} if roles else None,
            mkdir=True,
            lazy=True,
        )
        return sink


class CsvOutput(FileOutput):
    """Write CSV with a header."""

    type: ClassVar[str] = "csv"
    example: ClassVar[str] = '<output name="train" type="csv" from="kept" path="out/train.csv"/>'
    suffix: ClassVar[str | None] = ".csv"

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        sink: pl.LazyFrame = value.sink_csv(self.file(target), lazy=True)
        return sink


class JsonOutput(FileOutput):
    """Write JSON lines."""

    type: ClassVar[str] = "json"
    example: ClassVar[str] = '<output name="train" type="json" from="kept" path="out/train.jsonl"/>'
    suffix: ClassVar[str | None] = ".json"

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return (".json", ".jsonl", ".ndjson")

    def sink(self, value: Any, target: Path, context: RunContext) -> pl.LazyFrame | None:
        sink: pl.LazyFrame = value.sink_ndjson(self.file(target), lazy=True)
        return sink
