"""The one door to Rust: everything `penstock._native` offers, under the names the house uses.

Native errors arrive as `ValueError` (bad input; message says where and what), `OSError` (files) or
`MemoryError`; callers here add the file, the step and the hint.
"""

from __future__ import annotations

from penstock._native import (
    Dictionary,
    KeyTable,
    LibsvmWriter,
    Logistic,
    Online,
    Plan,
    RowError,
    Tables,
    compact_keys,
    csv_reader,
    csv_sample,
    fit_svm,
    frequent_itemsets,
    hash_column,
    json_reader,
    json_sample,
    libsvm_reader,
    platt,
    text_reader,
)

__all__ = [
    "Dictionary",
    "KeyTable",
    "LibsvmWriter",
    "Logistic",
    "Online",
    "Plan",
    "RowError",
    "Tables",
    "compact_keys",
    "csv_reader",
    "csv_sample",
    "fit_svm",
    "frequent_itemsets",
    "hash_column",
    "json_reader",
    "json_sample",
    "libsvm_reader",
    "platt",
    "text_reader",
]
