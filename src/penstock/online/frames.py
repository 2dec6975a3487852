"""The join over whole frames: the same samples as `joiner.py`, said in columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .joiner import KINDS
from .negatives import kept_column
from .terms import Terms

if TYPE_CHECKING:
    import polars as pl


class Columns(NamedTuple):
    """Names in the users' frames; "" where there is none."""

    id: str
    time: str
    kind: str
    value: str
    score: str
    arrived: str


def joined(
    shown: pl.LazyFrame,
    done: pl.LazyFrame,
    named: Columns,
    kept: list[str],
    terms: Terms,
    collect: Callable[[pl.LazyFrame], pl.DataFrame],
) -> pl.LazyFrame:
    """Samples in the order of (_emit_ms, _id, _kind): the columns in `kept`, then the join's own."""
    import polars as pl

    impressions = _impressions(shown, named, terms).with_row_index("_row")
    impressions = impressions.filter(~pl.col("_row").is_in(_repeated(collect(_doubtful(impressions))).implode()))
    matched = _matched(_feedback(done, named, terms), impressions, terms)
    labels = [f"_label_{kind.name}" for kind in terms.kinds] if len(terms.kinds) > 1 else []
    if terms.emit == "at_close":
        found = _at_close(impressions, matched, terms, labels)
    else:
        found = _at_once(impressions, matched, terms, labels)
    own = ("_id", "_kind", "_revision", "_time_ms", "_emit_ms", "_label", "_weight", *labels)
    ordered = found.sort("_emit_ms", "_id", "_place", "_revision")
    return ordered.select(*kept, *own)


def _impressions(shown: pl.LazyFrame, named: Columns, terms: Terms) -> pl.LazyFrame:
    """Those that count, repeated ones too; in the order in which they happen."""
    import polars as pl

    time = pl.col(named.time).cast(pl.Int64)
    happens = pl.col(named.arrived).cast(pl.Int64) if named.arrived else time
    score = pl.col(named.score).cast(pl.Float64) if named.score else pl.lit(None, pl.Float64)
    usable = pl.when(score.is_between(0, 1)).then(score).otherwise(0.0)
    found = shown.with_columns(
        _id=pl.col(named.id).cast(pl.String), _time_ms=time, _happens=happens, _score=usable.fill_null(0.0)
    )
    found = found.filter(
        pl.col("_id").is_not_null() & (pl.col("_id") != "") & pl.col("_time_ms").is_not_null(),
        pl.col("_happens") - pl.col("_time_ms") <= terms.lateness_ms,
        pl.col("_time_ms") <= pl.col("_happens") + terms.skew_ms,
    )
    keep = pl.lit(True)
    if terms.negatives < 1:
        keep = pl.col("_id").map_batches(
            lambda ids: pl.Series(kept_column(ids.to_arrow().cast("string"), terms.negatives)),
            return_dtype=pl.Boolean,
            is_elementwise=True,
        )
    close = pl.max_horizontal("_happens", "_time_ms") + terms.open_ms
    return found.with_columns(_close=close, _keep=keep).sort("_happens", "_id", "_time_ms", maintain_order=True)


def _doubtful(impressions: pl.LazyFrame) -> pl.LazyFrame:
    """Impressions whose id is another's too."""
    import polars as pl

    found = impressions.select("_row", "_id", "_happens", "_close")
    return found.filter(pl.len().over("_id") > 1).sort("_row")


def _repeated(doubtful: pl.DataFrame) -> pl.Series:
    """Rows that came while one of the same id was open."""
    import polars as pl

    open_until: dict[str, int] = {}
    gone = []
    for row, id, happens, close in doubtful.iter_rows():
        if happens <= open_until.get(id, -1):
            gone.append(row)
        else:
            open_until[id] = close
    return pl.Series(gone, dtype=pl.UInt32)


def _feedback(done: pl.LazyFrame, named: Columns, terms: Terms) -> pl.LazyFrame:
    """_id, _number (of its kind), _own (its time), _when (it happens), _value."""
    import polars as pl

    numbers = {kind.name: number for number, kind in enumerate(terms.kinds)}
    time = pl.col(named.time).cast(pl.Int64)
    found = done.select(
        _id=pl.col(named.id).cast(pl.String),
        _number=pl.col(named.kind).cast(pl.String).replace_strict(numbers, default=None, return_dtype=pl.Int32),
        _own=time,
        _when=pl.col(named.arrived).cast(pl.Int64) if named.arrived else time,
        _value=pl.col(named.value).cast(pl.Float64).fill_null(1.0) if named.value else pl.lit(1.0),
    )
    return found.drop_nulls().filter(
        pl.col("_own") <= pl.col("_when") + terms.skew_ms, pl.col("_value") >= 0, pl.col("_value").is_finite()
    )


def _matched(feedback: pl.LazyFrame, impressions: pl.LazyFrame, terms: Terms) -> pl.LazyFrame:
    """The first feedback of each kind that counts, by impression: _row, _emit, _number, _more, _given, _revision."""
    import polars as pl

    one = impressions.select("_row", "_id", "_time_ms", "_happens", "_close").sort("_happens")
    feedback = feedback.sort("_when")
    ways: dict[str, pl.LazyFrame] = {}
    open_ = feedback.join_asof(
        one, left_on="_when", right_on="_happens", by="_id", strategy="backward", coalesce=False, check_sortedness=False
    )
    inside = pl.col("_close").is_not_null() & (pl.col("_when") <= pl.col("_close"))
    ways["open"] = open_.filter(inside)
    before = (
        open_.filter(~inside)
        .select("_id", "_number", "_own", "_when", "_value")
        .sort("_when")
        .join_asof(
            one,
            left_on="_when",
            right_on="_happens",
            by="_id",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
    )
    ways["orphans"] = before.filter(pl.col("_when") + terms.lateness_ms >= pl.col("_happens"))
    found = pl.concat(list(ways.values()), how="diagonal")
    windows = {number: kind.window_ms for number, kind in enumerate(terms.kinds)}
    weights = {number: kind.weight for number, kind in enumerate(terms.kinds)}
    after = pl.col("_own") - pl.col("_time_ms")
    said = pl.col("_number").replace_strict(weights, return_dtype=pl.Float64)
    found = found.with_columns(_weight=said.fill_null(pl.col("_value"))).filter(
        after >= -terms.skew_ms,
        after <= pl.col("_number").replace_strict(windows, return_dtype=pl.Int64),
        pl.col("_weight") > 0,
    )
    found = found.sort("_row", "_when", "_number", "_own", "_value")
    found = found.unique(["_row", "_number"], keep="first", maintain_order=True)
    given = pl.col("_weight").cum_max().over("_row")
    earlier = given.shift(1).over("_row").fill_null(0.0)
    found = found.with_columns(
        _emit=pl.max_horizontal("_when", "_happens"), _given=given, _more=pl.col("_weight") - earlier
    )
    changed = (pl.col("_more") > 0).cast(pl.Int32)
    seen = [
        (pl.col("_number") == number).cast(pl.Int8).cum_max().over("_row").alias(f"_label_{kind.name}")
        for number, kind in enumerate(terms.kinds)
    ]
    return found.with_columns(changed.cum_sum().over("_row").alias("_revision"), *seen)


def _at_once(impressions: pl.LazyFrame, matched: pl.LazyFrame, terms: Terms, labels: list[str]) -> pl.LazyFrame:
    import polars as pl

    fake = terms.weighting == "fake_negative"
    score = pl.col("_score")
    negative = (1 - score * score if fake else pl.lit(1.0)) / terms.negatives
    shown = impressions.filter("_keep").with_columns(
        _kind=pl.lit(KINDS[0]),
        _place=pl.lit(0),
        _revision=pl.lit(0, pl.Int32),
        _emit_ms="_happens",
        _label=pl.lit(0, pl.Int8),
        _weight=negative,
        **{label: pl.lit(0, pl.Int8) for label in labels},
    )
    changes = matched.filter(pl.col("_more") > 0).select("_row", "_emit", "_more", "_revision", *labels)
    corrections = impressions.join(changes, on="_row").with_columns(
        _kind=pl.lit(KINDS[1]),
        _place=pl.lit(1),
        _emit_ms="_emit",
        _label=pl.lit(1, pl.Int8),
        _weight=pl.col("_more") * (1 + score if fake else 1.0),
    )
    return pl.concat([shown, corrections], how="diagonal")


def _at_close(impressions: pl.LazyFrame, matched: pl.LazyFrame, terms: Terms, labels: list[str]) -> pl.LazyFrame:
    import polars as pl

    last = matched.group_by("_row").agg(pl.col("_given").max(), *(pl.col(label).max() for label in labels))
    found = impressions.join(last, on="_row", how="left")
    positive = pl.col("_given").is_not_null()
    return found.filter(positive | pl.col("_keep")).with_columns(
        _kind=pl.lit(KINDS[0]),
        _place=pl.lit(0),
        _revision=pl.lit(0, pl.Int32),
        _emit_ms="_close",
        _label=positive.cast(pl.Int8),
        _weight=pl.when(positive).then(pl.col("_given")).otherwise(1 / terms.negatives),
        **{label: pl.col(label).fill_null(0) for label in labels},
    )
