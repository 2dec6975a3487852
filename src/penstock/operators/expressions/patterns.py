"""`like` patterns as regular expressions (Rust's syntax, which Python's `re` reads alike for these)."""

from __future__ import annotations

_SPECIAL = frozenset(r"\.+*?()|[]{}^$#&-~/")


def escape_regex(text: str) -> str:
    """The regular expression that matches exactly this text."""
    return "".join(f"\\{char}" if char in _SPECIAL and char != "/" else char for char in text)


def like_to_regex(pattern: str, escape: str = "") -> str:
    """% is any run of characters, _ any one, `escape` makes the next literal; the whole text must match."""
    parts, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if escape and char == escape and at + 1 < len(pattern):
            at += 1
            parts.append(escape_regex(pattern[at]))
        elif char == "%":
            parts.append(".*")
        elif char == "_":
            parts.append(".")
        else:
            parts.append(escape_regex(char))
        at += 1
    return f"(?s)\\A{''.join(parts)}\\z"
