"""Frames as text: lazy sinks for CSV, JSON lines, plain text and libsvm, each block of rows written as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penstock.data.partitions import partition_folder
from penstock.errors import DataError

if TYPE_CHECKING:
    import polars as pl

Compression = Literal["none", "gzip", "zstd"]

SUFFIXES: dict[Compression, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}

#: A word that no reader takes for a number, a boolean, a date, null or two fields: it needs no quotes.
_BARE = r"^[A-Za-z_][A-Za-z0-9_ .:/-]*[A-Za-z0-9_.:/-]$|^[A-Za-z_]$"
_NOT_BARE = r"(?i)^(true|false|nan|inf|infinity|null|none|na)$"


def place(target: Path, suffix: str, keys: Sequence[str]) -> Any:
    """What Polars sinks write to: one file, the only part of a folder, or a folder a value of the keys."""
    import polars as pl

    if not keys:
        return target / f"part-00000{suffix}" if target.is_dir() else target

    def named(args: Any) -> str:
        folder = partition_folder(dict(zip(keys, args.partition_keys.row(0), strict=True)))
        return f"{folder}/part-{args.index_in_partition:05d}{suffix}"

    return pl.PartitionBy(target, key=list(keys), include_key=False, file_path_provider=named)


def sink_csv(
    frame: pl.LazyFrame,
    target: Path,
    suffix: str,
    compression: Compression,
    keys: Sequence[str],
    sep: str,
    header: bool,
) -> pl.LazyFrame:
    """Strings are quoted wherever they could be taken for something else, so that they come back as they were."""
    import polars as pl

    schema = frame.collect_schema()
    quoted = []
    for name, dtype in schema.items():
        if name in keys:
            continue
        if isinstance(dtype, pl.Datetime):
            utc = pl.col(name) if dtype.time_zone is None else pl.col(name).dt.convert_time_zone("UTC")
            quoted.append(utc.dt.replace_time_zone(None).dt.cast_time_unit("us"))
        elif dtype in (pl.Categorical, pl.Enum, pl.String):
            quoted.append(_quoted(pl.col(name).cast(pl.String), sep))
        elif dtype == pl.Time:
            quoted.append(_quoted(pl.col(name).dt.to_string("%H:%M:%S%.6f"), sep))
    # The fields' quotes are in place already, and so must the header's be.
    names = {name: _header_name(name, sep) for name in schema if name not in keys}
    sink: pl.LazyFrame = (
        frame.with_columns(quoted)
        .rename(names)
        .sink_csv(
            place(target, suffix, keys),
            separator=sep,
            include_header=header,
            quote_style="never",
            datetime_format="%Y-%m-%dT%H:%M:%S%.6f",
            mkdir=bool(keys),
            check_extension=False,
            lazy=True,
            compression="uncompressed" if compression == "none" else compression,
        )
    )
    return sink


def _quoted(column: pl.Expr, sep: str) -> pl.Expr:
    import polars as pl

    bare = column.str.contains(_BARE) & ~column.str.contains(_NOT_BARE)
    if sep == "/":
        bare &= ~column.str.contains(sep, literal=True)
    marked = pl.concat_str(pl.lit('"'), column.str.replace_all('"', '""', literal=True), pl.lit('"'))
    return pl.when(bare).then(column).otherwise(marked).alias(column.meta.output_name())


def _header_name(name: str, sep: str) -> str:
    plain = name.replace("_", "").isalnum() and sep not in name
    return name if plain else '"' + name.replace('"', '""') + '"'


def sink_json(
    frame: pl.LazyFrame, target: Path, suffix: str, compression: Compression, keys: Sequence[str]
) -> pl.LazyFrame:
    """One object a line; timestamps as ISO 8601. JSON has no NaN and no infinity: they become null."""
    import polars as pl

    times = []
    for name, dtype in frame.collect_schema().items():
        if isinstance(dtype, pl.Datetime) and name not in keys:
            utc = pl.col(name) if dtype.time_zone is None else pl.col(name).dt.convert_time_zone("UTC")
            times.append(utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + ("Z" if dtype.time_zone else "")))
    sink: pl.LazyFrame = frame.with_columns(times).sink_ndjson(
        place(target, suffix, keys),
        mkdir=bool(keys),
        check_extension=False,
        lazy=True,
        compression="uncompressed" if compression == "none" else compression,
    )
    return sink


def sink_lines(
    frame: pl.LazyFrame, target: Path, suffix: str, compression: Compression, keys: Sequence[str]
) -> pl.LazyFrame:
    """The frame's one string column (beside the keys), a line a row as it stands; null is an empty line."""
    sink: pl.LazyFrame = frame.sink_csv(
        place(target, suffix, keys),
        include_header=False,
        quote_style="never",
        mkdir=bool(keys),
        check_extension=False,
        lazy=True,
        compression="uncompressed" if compression == "none" else compression,
        null_value="",
    )
    return sink


def one_line_each(column: str, step: str) -> Any:
    """A batch function that refuses values which would become two lines."""

    def checked(batch: pl.DataFrame) -> pl.DataFrame:
        if batch.get_column(column).str.contains(r"[\r\n]").any():
            raise DataError(
                f"output '{step}': a value of '{column}' holds a line break, and text has one value a line",
                "replace them first, or write CSV or JSON",
                "DATA021",
            )
        return batch

    return checked


__all__ = ["SUFFIXES", "Compression", "one_line_each", "place", "sink_csv", "sink_json", "sink_lines"]
