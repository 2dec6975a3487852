"""What serves instead of a version whose mapped rows turn out to be damaged: the version that was live before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from penstock.data.atomic import write_text
from penstock.serving.desired import Resolved
from penstock.serving.overrides import Release
from penstock.serving.references import Bundle

FILE = "served.json"
#: Versions that are remembered of each model.
KEPT = 10


class Served:
    """Which versions were live and ready, by model, newest last; kept in the state folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._names: dict[str, list[str]] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._names = {}

    def note(self, model: str, live: Bundle) -> None:
        """This one is live now."""
        names = self._names.setdefault(model, [])
        if names[-1:] != [live.fixed]:
            names[:] = [*(name for name in names if name != live.fixed), live.fixed][-KEPT:]
            write_text(self._path, json.dumps(self._names, indent=1) + "\n")

    def before(self, model: str, bundle: Bundle) -> list[str]:
        """What was live before `bundle`, the last one first."""
        return [name for name in reversed(self._names.get(model, [])) if name != bundle.fixed]


class Damaged:
    """Copies of bundles that are not sound. A bundle that was fetched anew is another copy."""

    def __init__(self) -> None:
        self._why: dict[tuple[str, str], str] = {}

    def add(self, bundle: Bundle, why: str) -> bool:
        """Whether this is news."""
        key = bundle.digest, bundle.stamp
        news = key not in self._why
        self._why[key] = why
        return news

    def quarantined(self, resolved: Resolved) -> dict[str, str]:
        """By digest, why it may not be loaded."""
        found = {bundle.digest: self._why.get((bundle.digest, bundle.stamp)) for bundle in resolved.bundles.values()}
        return {digest: why for digest, why in found.items() if why is not None}


def instead(
    release: Release, label: str, before: str | None, resolved: Mapping[str, Bundle], *, again: bool
) -> Release | None:
    """The release with no share for `label`, which is damaged; None where nothing can take its place.

    `before`: the version that was live before, for a live one. `resolved`: the bundles of the release by label.
    `again`: whether the label's bundle can be had anew; else it leaves.
    """
    if not again and len(release.versions) > 1:
        release = replace(release, versions={k: v for k, v in release.versions.items() if k != label})
    if label != release.live:
        return release.without(label)
    if before is None:
        return None
    known = next((other for other, bundle in resolved.items() if bundle.fixed == before), label)
    versions = {**release.versions, known: before} if known == label else release.versions
    shadow = tuple(s for s in release.shadow if s not in (known, label))
    return replace(release, versions=versions, traffic={known: 100.0}, live=known, shadow=shadow)
