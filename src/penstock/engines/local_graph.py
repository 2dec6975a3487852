"""The inner DAG of a node: which steps are needed, in which order, and what is shared between stages.

Pure: a `NodeSpec` goes in, a `Graph` of typed operators comes out. Read `build` first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError

from penstock.data.schema import ModelInfo, Schema
from penstock.engines.spec import NodeSpec, StepSpec
from penstock.errors import PenstockError, Problem, ProblemsFound, did_you_mean
from penstock.operators.base import AnyOperator, CheckContext, Operator, Output, Process
from penstock.operators.catalog import operator, user_operator
from penstock.operators.secrets import reveal


@dataclass(frozen=True)
class LocalStep:
    """A step as this engine runs it. `references` are its edges to steps of this node, as written, once each."""

    spec: StepSpec
    operator: AnyOperator
    references: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def costly(self) -> bool:
        """Whether running it twice is costly or unsafe: user code and `features`."""
        return bool(self.spec.cls) or (isinstance(self.operator, Process) and self.operator.spool)

    @property
    def ends_a_stage(self) -> bool:
        return isinstance(self.operator, Process) and self.operator.staged()

    @property
    def gives_models(self) -> bool:
        """Whether no frame comes out of it: then nothing below pulls rows through it."""
        if not isinstance(self.operator, Process) or not self.ends_a_stage or self.operator.spool:
            return False
        with suppress(Exception):  # what is wrong with it is said when it is built
            unknown = {reference: Schema.unknown() for reference in self.references}
            outputs = self.operator.check(unknown, CheckContext(step=self.name)).outputs
            return bool(outputs) and all(isinstance(info, ModelInfo) for info in outputs.values())
        return False


@dataclass(frozen=True)
class Graph:
    """The needed steps, each after all it reads. Outputs stand among them; nothing reads an output."""

    steps: tuple[LocalStep, ...]
    preview: str = ""  # the reference to show instead of writing outputs

    @cached_property
    def by_name(self) -> Mapping[str, LocalStep]:
        return {step.name: step for step in self.steps}

    @property
    def outputs(self) -> tuple[LocalStep, ...]:
        return tuple(step for step in self.steps if isinstance(step.operator, Output))

    @property
    def user_steps(self) -> Mapping[str, str]:
        """The steps of each class of the user's own, ready to stand in quotes."""
        found: dict[str, str] = {}
        for step in self.steps:
            if cls := step.spec.cls:
                found[cls] = f"{found[cls]}' or '{step.name}" if cls in found else step.name
        return found

    def readers(self, name: str) -> tuple[LocalStep, ...]:
        """The steps that read any port of `name`."""
        return self._readers.get(name, ())

    def shared(self, reference: str) -> bool:
        """Whether more than one frame is made from this one: it is read twice, or by a step with several ports."""
        readers = [step for step in self.readers(step_of(reference)) if reference in step.references]
        reads = [r for step in readers for _, r, _ in step.operator.references() if r == reference]
        return len(reads) > 1 or any(len(step.operator.ports()) > 1 for step in readers)

    @cached_property
    def _readers(self) -> Mapping[str, tuple[LocalStep, ...]]:
        found: dict[str, tuple[LocalStep, ...]] = {}
        for step in self.steps:
            for name in dict.fromkeys(step_of(reference) for reference in step.references):
                found[name] = (*found.get(name, ()), step)
        return found

    @cached_property
    def executions(self) -> Mapping[str, frozenset[str]]:
        """Which executions pull rows out of each step: one a staged reader, and "" for the final one.

        A staged step pulls from all it reads when it runs, and so does whatever later executes a frame it
        passed on, because such a frame is still a lazy view of what the step read.
        """
        found: dict[str, frozenset[str]] = {}
        for step in reversed(self.steps):
            pulls: set[str] = set()
            if isinstance(step.operator, Output):
                pulls.add(step.name if step.spec.cls else "")
            if self.preview and step_of(self.preview) == step.name:
                pulls.add("")
            for reader in self.readers(step.name):
                if not reader.gives_models:
                    pulls |= found[reader.name]
                if reader.ends_a_stage:
                    pulls.add(reader.name)
            found[step.name] = frozenset(pulls)
        return found

    @cached_property
    def spooled(self) -> frozenset[str]:
        """The steps whose frames are written to the run store once and read from there by every later stage.

        Below a costly step that several executions pull from, the spool is as far down as all of them still
        share one frame: a filter after `features` makes the spool smaller.
        """
        found = set()
        for step in self.steps:
            if not step.costly or len(self.executions[step.name]) < 2:
                continue
            at = step
            while len(readers := self.readers(at.name)) == 1:
                below = readers[0]
                alone = isinstance(below.operator, Process) and len(below.references) == 1 and not below.ends_a_stage
                if not alone or len(self.executions[below.name]) < 2 or len(below.operator.ports()) > 1:
                    break
                at = below
            found.add(at.name)
        return frozenset(found)


def step_of(reference: str) -> str:
    """`parts` of `parts.train`."""
    return reference.partition(".")[0]


def build(spec: NodeSpec) -> Graph:
    """Type every step, keep those that an output (or the preview) needs, and put them in order.

    Raises `ProblemsFound` where a step cannot be typed: flow's check says the same before anything runs.
    """
    known = {step.name: step for step in spec.steps}
    problems: list[Problem] = []
    typed: dict[str, LocalStep] = {}
    for step in spec.steps:
        try:
            typed[step.name] = _typed(step, known)
        except ValidationError as error:
            problems += [
                Problem(spec.flow_file, step.line, "OPER100", _said(step, fault.get("loc", ()), str(fault["msg"])))
                for fault in error.errors()
            ]
    if problems:
        raise ProblemsFound(problems)
    if spec.preview:
        roots = [_known(step_of(spec.preview.step), typed)]
    else:
        roots = [step for step in typed.values() if isinstance(step.operator, Output)]
    return Graph(tuple(_ordered(roots, typed)), spec.preview.step if spec.preview else "")


def _typed(step: StepSpec, known: Mapping[str, StepSpec]) -> LocalStep:
    found: type[Operator] = user_operator(step.cls) if step.cls else operator(step.kind, step.type)
    attrs = {name: reveal(value) for name, value in step.attrs.items()}
    if found.text_field and step.text.strip() and found.text_field not in attrs:
        attrs[found.text_field] = reveal(step.text)
    value = found.model_validate(attrs)
    references = []
    for _, reference, marker in value.references():
        if marker.or_location and step_of(reference) not in known:
            continue  # a bundle's path or models:/name
        references.append(reference)
    return LocalStep(step, value, tuple(dict.fromkeys(references)))  # type: ignore[arg-type]


def _said(step: StepSpec, loc: Sequence[object], message: str) -> str:
    where = ".".join(str(part) for part in loc)
    return f"{step.kind} '{step.name}': {where}: {message}" if where else f"{step.kind} '{step.name}': {message}"


def _known(name: str, typed: Mapping[str, LocalStep]) -> LocalStep:
    if name not in typed:
        raise PenstockError(f"there is no step '{name}' in this node", did_you_mean(name, typed), code="RUN101")
    return typed[name]


def _ordered(roots: Sequence[LocalStep], typed: Mapping[str, LocalStep]) -> Iterator[LocalStep]:
    """Depth first, without recursion (a chain may be a thousand steps long); outputs come in the file's order."""
    done: set[str] = set()
    for root in roots:
        waiting: list[tuple[LocalStep, bool]] = [(root, False)]
        while waiting:
            step, ready = waiting.pop()
            if step.name in done:
                continue
            if ready:
                done.add(step.name)
                yield step
                continue
            waiting.append((step, True))
            below = [_known(step_of(reference), typed) for reference in reversed(step.references)]
            waiting += [(b, False) for b in below if b.name not in done]
