"""From a configuration and its overrides to the one document that the native host makes so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.errors import PenstockError, Problem, did_you_mean
from penstock.serving.config import Config, Document, Model
from penstock.serving.overrides import Override, Release, current
from penstock.serving.references import Bundle, bundle_of, functions_of, misfits


class Resolved:
    """What every reference means now. `faults`: by model and label, why a version cannot be had."""

    def __init__(self) -> None:
        self.bundles: dict[tuple[str, str], Bundle] = {}
        self.functions: dict[tuple[str, str], dict[str, int]] = {}
        self.faults: dict[tuple[str, str], PenstockError] = {}

    def digests(self) -> dict[tuple[str, str], str]:
        return {key: bundle.digest for key, bundle in self.bundles.items()}


def resolve(config: Config, overrides: Mapping[str, Override]) -> Resolved:
    """Find every version that is to serve. Nothing is raised: a lost version must not stop the others."""
    found = Resolved()
    for name, model in config.document.models.items():
        for label, reference in current(config, name, overrides).versions.items():
            try:
                bundle = bundle_of(config, reference)
                found.functions[name, label] = functions_of(bundle, model.allow_code)
                found.bundles[name, label] = bundle
            except PenstockError as fault:
                found.faults[name, label] = fault
    return found


def problems_of(config: Config, resolved: Resolved) -> list[Problem]:
    """What is wrong with the versions that the file names: lost bundles, splits whose versions do not fit."""
    found = []
    for name, model in config.document.models.items():
        at = ("models", name, "versions")
        for label in model.versions:
            fault = resolved.faults.get((name, label))
            if fault is not None:
                code = fault.code if fault.code.startswith("SERV") else "SERV006"
                severity = "warning" if model.optional else "error"
                problem = config.problem((*at, label), code, fault.message, fault.hint)
                found.append(Problem(*_facts(problem), severity=severity))  # type: ignore[arg-type]
        found += [
            config.problem((*at, label), "SERV008", f"version '{label}' cannot share the traffic of '{name}': {why}",
                           "requests are written for the live version; serve it as a model of its own")
            for label, why in unfit(name, current(config, name, {}), resolved)
        ]  # fmt: skip
        found += _lost_views(config, name, model)
    return sorted(found)


def _lost_views(config: Config, name: str, model: Model) -> list[Problem]:
    """Why a model's feature views cannot be fetched: a store that does not open, views that are not in it."""
    if model.views is None:
        return []
    from penstock.features.views import OnlineStore

    at = ("models", name, "views")
    hint = "`penstock features materialise` writes them"
    try:
        known = OnlineStore(config.store(model.views.store)).views()
    except PenstockError as fault:
        said = f"the views of '{name}': {fault.message}"
        return [config.problem((*at, "store"), "VIEW029", said, fault.hint or hint)]
    return [
        config.problem((*at, "use"), "VIEW029", f"the views of '{name}': the store has no view '{view}'",
                       did_you_mean(view, known, hint))
        for view in model.views.use if view not in known
    ]  # fmt: skip


def unfit(name: str, release: Release, resolved: Resolved) -> list[tuple[str, str]]:
    """(label, why) of the versions that share traffic, or shadow it, and cannot answer live's requests."""
    live = resolved.bundles.get((name, release.live))
    sharing = [label for label, share in release.traffic.items() if share > 0 and label != release.live]
    found = []
    for label in dict.fromkeys((*sharing, *release.shadow)):
        other = resolved.bundles.get((name, label))
        if live is not None and other is not None and (said := misfits(live, other)):
            found.append((label, "; ".join(said[:3])))
    return found


def desired(
    config: Config, overrides: Mapping[str, Override], resolved: Resolved, quarantined: Mapping[str, str]
) -> str:
    """The document, as JSON. Versions that cannot be had are named with the reason, so that readiness tells of them."""
    models = {}
    for name, model in config.document.models.items():
        release = current(config, name, overrides)
        models[name] = _model(name, model, release, resolved, quarantined)
        models[name]["limits"] = _limits(config, model)
        if model.views is not None:
            from penstock.features.views.online import native_address

            address = native_address(config.store(model.views.store))
            models[name]["views"] = {"store": address, "views": list(model.views.use)}
    document = config.document
    samples = None
    if document.samples is not None:
        given = document.samples
        samples = {"path": str(config.at(given.path)), "rows_per_s": given.rows_per_s, "deny": list(given.deny)}
    return json.dumps(
        {
            "models": models,
            "memory_bytes": document.limits.memory_mb << 20,
            "samples": samples,
            "impressions": _impressions(config),
        }
    )


def _impressions(config: Config) -> dict[str, Any] | None:
    given = config.document.impressions
    if given is None:
        return None
    folder, log = given.log

    def ms(seconds: float | None) -> int | None:
        return None if seconds is None else int(seconds * 1000)

    return {
        "path": str(config.at(folder)),
        "partitions": log.partitions,
        "ack": given.ack,
        "deny": list(given.deny),
        "tick_ms": given.tick_ms,
        "segment_bytes": log.segment_bytes,
        "sync_ms": ms(log.sync_s),
        "retention_ms": ms(log.retention_s),
        "retention_bytes": log.retention_bytes,
        "lock_wait_ms": ms(log.timeout_s),
    }


def _model(
    name: str, model: Model, release: Release, resolved: Resolved, quarantined: Mapping[str, str]
) -> dict[str, Any]:
    versions = {}
    for label, reference in release.versions.items():
        bundle = resolved.bundles.get((name, label))
        fault = resolved.faults.get((name, label))
        digest = bundle.digest if bundle else ""
        versions[label] = {
            "folder": str(bundle.folder) if bundle else "",
            "digest": digest,
            "copy": bundle.stamp if bundle else "",
            "reference": reference,
            "functions": resolved.functions.get((name, label), {}),
            "following": _following(model) if label == follows(model, release) else None,
            "quarantined": quarantined.get(digest) or (f"{fault.message}" if fault else None),
        }
    guards = model.guards
    return {
        "versions": versions,
        "traffic": {
            "weights": dict(release.traffic), "live": release.live,
            "sticky": release.sticky or None, "salt": release.salt,
        },
        "shadow": list(release.shadow),
        "guards": {
            "error_rate": guards.error_rate or None, "latency": guards.latency or None,
            "score_shift": guards.score_shift or None, "score_shift_acts": guards.score_shift_acts,
            "min_requests": guards.min_requests, "min_scores": guards.min_scores,
        },
        "optional": model.optional,
    }  # fmt: skip


def _limits(config: Config, model: Model) -> dict[str, Any]:
    """`rows_bytes` None: of half of what is free."""
    limits = model.limits.model_dump()
    rows_mb = limits.pop("rows_mb")
    if rows_mb == "auto":
        rows_mb = 0 if config.document.limits.memory_mb else None
    return {**limits, "rows_bytes": None if rows_mb is None else rows_mb << 20}


def follows(model: Model, release: Release) -> str | None:
    """The label whose rows follow the model's chain; None where it follows none."""
    return (model.live.version or release.live) if model.live else None


def _following(model: Model) -> dict[str, Any] | None:
    live = model.live
    return {"overlay_bytes": live.overlay_mb << 20, "max_lag_s": live.max_lag_s} if live else None


def doors(config: Config, addresses: tuple[str, str] | None = None) -> str:
    """The settings of the doors, as JSON. `addresses`: those that were taken before a restart."""
    document = config.document
    http, grpc = addresses or (document.listen.http, document.listen.grpc)
    settings: dict[str, Any] = {
        "http": http, "grpc": grpc, "threads": document.listen.threads, "insecure": document.listen.insecure,
        "connections": document.limits.connections,
        "limits": {"body_bytes": document.limits.body_mb << 20, "rows": document.limits.rows},
        "tokens": tokens(document),
    }  # fmt: skip
    if document.tls is not None:
        given = document.tls
        files = {"certificate": given.certificate, "key": given.key, "client_ca": given.client_ca}
        settings["tls"] = {key: str(config.at(path)) for key, path in files.items() if path}
    return json.dumps(settings)


def tokens(document: Document) -> list[dict[str, Any]]:
    return [
        {"name": t.name, "sha256": t.sha256.lower(), "scopes": list(t.scopes), "models": list(t.models) or None}
        for t in document.tokens
    ]


def _facts(problem: Problem) -> tuple[str, int, str, str, str]:
    return problem.file, problem.line, problem.code, problem.message, problem.hint
