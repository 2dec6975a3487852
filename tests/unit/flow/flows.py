"""Random flows for Hypothesis: any the three forms can hold, sensible or not."""

from __future__ import annotations

from hypothesis import strategies as st

from penstock.flow.model import Argument, Flow, Node, Param, Position, Setting, Step

#: What XML 1.0 can hold.
_CONTROLS = [chr(c) for c in range(32) if chr(c) not in "\t\n\r"]
characters = st.characters(exclude_categories=["Cs"], exclude_characters=[*_CONTROLS, "\ufffe", "\uffff"])
AWKWARD = (
    'say "hi"',
    "it's", "a < b && c > d", "]]>", "<![CDATA[x", "\n", "two\nlines\n", "tab\t", "\r\n", "\\n", "{x}", "${data}",
    "ü\x85\u2028", '"""', "  spaces  ", "<!-- no -->", "\ufeff", "😀",
)  # fmt: skip
texts = st.one_of(st.sampled_from(AWKWARD), st.text(characters, max_size=6))
names = st.sampled_from(["a", "b", "clicks", "model", "class", "Flow", "flow", "_x", "Train_2", "lambda"])
#: XML reads a line end inside a comment as \n, and knows no "--" there.
comment_texts = texts.map(lambda t: t.replace("\r", "").replace("-", "~"))
comments = st.lists(comment_texts, max_size=2).map(tuple)
numbers = st.one_of(st.integers(-9999, 9999).map(str), st.sampled_from(["1.5", "10.0", "1.50", "007", "-0", "1e3"]))
positions = st.one_of(st.none(), st.builds(Position, numbers, numbers))
keys = st.one_of(
    names, st.sampled_from(["from", "class_", "at", "text", "x", "y", "comments", "self", "lambda", "a-b"])
)
attributes = st.dictionaries(
    keys.filter(lambda k: k not in ("name", "type", "class", "engine", "line", "xmlns") and k[:3].lower() != "xml"),
    texts,
    max_size=3,
)
steps = st.builds(
    Step,
    kind=st.sampled_from(["input", "process", "output"]),
    name=names,
    type=st.one_of(st.just(""), names),
    cls=st.one_of(st.just(""), st.just("package.module:Class")),
    attrs=attributes,
    text=texts.map(lambda t: t if t.strip() else ""),
    position=positions,
    comments=comments,
)
settings = st.lists(st.builds(Setting, names, texts, comments=comments), max_size=2).map(tuple)
nodes = st.builds(
    Node,
    name=names,
    engine=names,
    attrs=attributes,
    conf=settings,
    env=settings,
    args=st.lists(st.builds(Argument, texts, comments=comments), max_size=2).map(tuple),
    steps=st.lists(steps, max_size=3).map(tuple),
    position=positions,
    comments=comments,
    last_comments=comments,
)
params = st.builds(
    Param, name=names, type=st.one_of(st.just(""), names), default=st.one_of(st.none(), texts), description=texts,
    comments=comments,
)  # fmt: skip
flows = st.builds(
    Flow,
    name=names,
    description=texts,
    params=st.lists(params, max_size=2).map(tuple),
    nodes=st.lists(nodes, max_size=2).map(tuple),
    comments=comments,
    last_comments=comments,
    after_comments=comments,
)
