"""Order and cycles of small directed graphs: name -> the names it needs. Names outside the graph are ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Graph = Mapping[str, Iterable[str]]


def order(graph: Graph) -> list[str]:
    """Each name after what it needs, otherwise as the graph lists them; where there is a cycle, it is cut somewhere."""
    done: dict[str, bool] = {}
    ordered: list[str] = []
    for root in graph:
        stack = [(root, iter(graph[root]))] if root not in done else []
        done.setdefault(root, False)
        while stack:
            name, needs = stack[-1]
            for need in needs:
                if need in graph and need not in done:
                    done[need] = False
                    stack.append((need, iter(graph[need])))
                    break
            else:
                stack.pop()
                if not done[name]:
                    done[name] = True
                    ordered.append(name)
    return ordered


def cycles(graph: Graph) -> list[list[str]]:
    """One shortest cycle of every knot of names that need each other, each from its first name in the graph's order."""
    place = {name: position for position, name in enumerate(graph)}
    found = []
    for knot in _knots(graph):
        if len(knot) > 1 or knot[0] in graph[knot[0]]:
            found.append(_shortest(graph, min(knot, key=place.__getitem__), set(knot)))
    return sorted(found, key=lambda cycle: place[cycle[0]])


def _shortest(graph: Graph, start: str, members: set[str]) -> list[str]:
    """The way from `start` back to itself, breadth first; there is one in every knot."""
    came_from: dict[str, str] = {}
    wave = [start]
    while wave:
        following = []
        for name in wave:
            for need in graph[name]:
                if need == start:
                    way = [name]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return way[::-1]
                if need in members and need not in came_from:
                    came_from[need] = name
                    following.append(need)
        wave = following
    return []


def _knots(graph: Graph) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972), without recursion: flows may be long chains."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    knots = []
    for root in graph:
        if root in index:
            continue
        stack = [(root, iter([n for n in graph[root] if n in graph]))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while stack:
            name, needs = stack[-1]
            for need in needs:
                if need not in index:
                    index[need] = low[need] = len(index)
                    path.append(need)
                    on_path.add(need)
                    stack.append((need, iter([n for n in graph[need] if n in graph])))
                    break
                if need in on_path:
                    low[name] = min(low[name], index[need])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[name])
                if low[name] == index[name]:
                    knot: list[str] = []
                    while not knot or knot[-1] != name:
                        knot.append(path.pop())
                        on_path.discard(knot[-1])
                    knots.append(knot)
    return knots


def ancestors(graph: Graph) -> dict[str, set[str]]:
    """All that each name needs, directly or not. In a cycle some of its members may be missing."""
    found: dict[str, set[str]] = {}
    for name in order(graph):
        found[name] = set()
        for need in graph[name]:
            if need in graph:
                found[name] |= {need} | found.get(need, set())
    return found
