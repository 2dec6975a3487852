"""Secrets: flows and specs hold `${secret.NAME}`; only the process that needs the value reads it, from its environment.

The value of `${secret.NAME}` is the environment variable PENSTOCK_SECRET_NAME. Interpolation (`flow.values`) leaves
the reference as it is, and leaves `$${secret.` escaped, so a spec file never holds a value; engines call `reveal` on
each string just before an operator or a program gets it, and the runner masks logs with `mask`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from penstock.errors import PenstockError

PREFIX = "PENSTOCK_SECRET_"
_REFERENCE = re.compile(r"\$?\$\{secret\.([A-Za-z_][A-Za-z0-9_]*)\}")


class SecretMissing(PenstockError):
    """A secret that a step needs is not in the environment."""


def secret_names(text: str) -> tuple[str, ...]:
    """The secrets a text refers to (escaped references are not references)."""
    return tuple(m[1] for m in _REFERENCE.finditer(text) if not m[0].startswith("$$"))


def reveal(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Put the values in. Raises `SecretMissing` naming the variable to set."""
    if "${secret." not in text:
        return text
    found = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        name = PREFIX + match[1]
        if name not in found:
            raise SecretMissing(
                f"the secret '{match[1]}' is not set", f"set the environment variable {name}", code="FLOW027"
            )
        return found[name]

    return _REFERENCE.sub(value, text)


def mask(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replace the values of all secrets in the environment by ***: what logs, reports and lineage must pass through."""
    found = os.environ if environment is None else environment
    values = {v for k, v in found.items() if k.startswith(PREFIX) and v}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return text
