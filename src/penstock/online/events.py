"""Records of the input topics as events of the join, or the reason why one cannot be.

An event is a plain tuple that sorts into the order in which events happen: time by the partition's clock, impressions
before feedback, id, then what tells equal ones apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from penstock.streams import Record

from .terms import Terms

IMPRESSION, FEEDBACK = 0, 1
#: Longer ids fit into no key of the state.
MOST_ID_BYTES = 400
_TICK: Final = b'"_tick_ms"'

#: (happens_ms, IMPRESSION, id, time_ms, partition, offset, columns, score)
Impression = tuple[int, int, bytes, int, int, int, bytes, float | None]
#: (happens_ms, FEEDBACK, id, kind's number, time_ms, value, partition, offset)
Feedback = tuple[int, int, bytes, int, int, float, int, int]
Event = Impression | Feedback


class Poison(Exception):
    """A record that is no event; the message says why."""


class Passed(Exception):
    """An event that is none of this join's: a shadow's, another model's, a type without a window. Says which."""


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


_decode = json.JSONDecoder(parse_constant=_no_number).decode


def _encoder() -> Callable[[Any], str]:
    """What `json.JSONEncoder.encode` makes anew for each value, made once: a fifth of the join's time."""
    from json import encoder

    plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    make: Any = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    chunks = make(None, plain.default, encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_encode = _encoder()


def tick_ms(record: Record) -> int | None:
    """The time that a tick says; None where the record is none."""
    if record.key or _TICK not in record.value[:16]:
        return None
    try:
        return _whole(_object(record.value), "_tick_ms")
    except Poison:
        return None


def impression(record: Record, happens_ms: int, partition: int, terms: Terms) -> Impression:
    """Raises `Poison`, `Passed`."""
    value = _object(record.value)
    if value.get("shadow"):
        raise Passed("shadow")
    if terms.model and value.get("model") != terms.model:
        raise Passed("other_model")
    features = value.get("features")
    if type(features) is not dict:
        raise Poison("'features' is no object")
    time_ms = _timely(_whole(value, "time_ms"), happens_ms, terms)
    score = value.get("score")
    if type(score) not in (float, int):
        score = None
    try:
        columns = _encode(features)[1:-1].encode()
    except (ValueError, RecursionError):  # half a character (a lone surrogate), 1e999
        raise Poison("'features' holds what no JSON can say") from None
    if b'"_' in columns or b'"":' in columns:  # perhaps in a value: then each name is looked at
        for name in features:
            if name[:1] in ("_", ""):
                raise Poison(f"column '{name}' of 'features': names beginning with _ are the join's own")
    return happens_ms, IMPRESSION, _id(value), time_ms, partition, record.offset, columns, score


def feedback(record: Record, happens_ms: int, partition: int, terms: Terms, numbers: dict[str, int]) -> Feedback:
    """numbers: name of a kind -> its place among the terms'. Raises `Poison`, `Passed`."""
    value = _object(record.value)
    name = value.get("type")
    if type(name) is not str:
        raise Poison("'type' is no string")
    weight = value.get("value", 1)
    if type(weight) not in (float, int) or not 0 <= weight < 1e300:
        raise Poison("'value' is no number from 0 on")
    id_ = _id(value)
    time_ms = _timely(_whole(value, "time_ms"), happens_ms, terms)
    if name not in numbers:
        raise Passed("other_type")
    return happens_ms, FEEDBACK, id_, numbers[name], time_ms, float(weight), partition, record.offset


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = _decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise Poison(f"it is no JSON: {str(error) or 'nested too deep'}") from None
    if type(value) is not dict:
        raise Poison("it is no JSON object")
    return value


def _whole(value: dict[str, Any], name: str) -> int:
    found = value.get(name)
    if type(found) is not int or not 0 < found < 1 << 50:
        raise Poison(f"'{name}' is no whole number of milliseconds since the epoch")
    return found


def _timely(time_ms: int, happens_ms: int, terms: Terms) -> int:
    if time_ms > happens_ms + terms.skew_ms:
        ahead_s = (time_ms - happens_ms) / 1000
        raise Poison(f"it is from the future: {ahead_s:,.0f} s ahead of its writer's clock")
    return time_ms


def _id(value: dict[str, Any]) -> bytes:
    found = value.get("id")
    if type(found) is not str or not found:
        raise Poison("'id' is no string, or empty")
    try:
        encoded = found.encode()
    except UnicodeEncodeError:
        raise Poison("'id' holds half a character (a lone surrogate)") from None
    if len(encoded) > MOST_ID_BYTES:
        raise Poison(f"'id' has {len(encoded)} bytes; at most {MOST_ID_BYTES} are taken")
    return encoded
