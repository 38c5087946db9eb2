"""Cuts an exported program in two: what some of its inputs alone decide, and the rest.

Walking back from the program's outputs, the first value that depends on no other input and has one
row an item is stored; what is behind it never runs at serving time.
"""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, GraphModule, Node

from feedmodel.errors import PublishError

aten = torch.ops.aten
# Rearrange or repeat an item's numbers: to store the result would take room and save nothing.
LAYOUT = {
    aten.expand.default, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.reshape.default, aten.view.default, aten.clone.default, aten.permute.default,
    aten.transpose.int,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Halves:
    """`ahead` takes the inputs that were cut off and gives (items, width) float32. `rest` takes
    `inputs`, of which the first of those is that tensor, and gives what the program gave."""

    ahead: GraphModule
    rest: GraphModule
    inputs: tuple[str, ...]
    width: int


def cut(program: torch.export.ExportedProgram, names: Sequence[str], own: Sequence[str]) -> Halves:
    """`names` are the program's inputs in its order, `own` those to compute ahead of time, also in
    that order. Raises PublishError where nothing can be."""
    module = program.run_decompositions({}).module(check_guards=False)  # {}: no operation in place
    walk = _Walk(module, names, own)
    if all(node.op == "placeholder" for node in walk.stored):
        raise PublishError(
            f"--precompute {', '.join(own)}: the model computes nothing from it alone, before the "
            "other inputs come in"
        )
    inputs = tuple(n for n in names if n == own[0] or n not in own)
    return Halves(
        _ahead(module, walk, own), _rest(module, walk, names, own), inputs, sum(walk.widths)
    )


@dataclass
class _Walk:
    """Back from the outputs to the values that are stored. `kept` is what the rest still runs."""

    module: GraphModule
    names: Sequence[str]
    own: Sequence[str]
    stored: dict[Node, None] = field(default_factory=dict)
    kept: set[Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        placeholders = self.module.graph.find_nodes(op="placeholder")
        self.inputs = dict(zip(self.names, placeholders, strict=True))
        self.items = self.inputs[self.own[0]].meta["val"].shape[0]
        self._alone = _depending_on({self.inputs[name] for name in self.own}, self.module.graph)
        todo = [self.module.graph.output_node()]
        while todo:
            node = todo.pop()
            if node in self.kept or node in self.stored:
                continue
            if self._alone.get(node) and self._is_storable(node):
                self.stored[node] = None
                continue
            if node in self.inputs.values() and self._alone.get(node):
                raise PublishError(
                    f"--precompute {', '.join(self.own)}: the model reads {node.name} together "
                    "with other inputs, as the whole numbers that it holds"
                )
            self.kept.add(node)
            if not self.is_items(node):
                todo += node.all_input_nodes

    @property
    def widths(self) -> list[int]:
        return [math.prod(_tail(node)) for node in self.stored]

    def is_items(self, node: Node) -> bool:
        """How many items there are; the stored rows tell it, too."""
        value = node.meta.get("val")
        return isinstance(value, torch.SymInt) and str(value) == str(self.items)

    def _is_storable(self, node: Node) -> bool:
        value = node.meta.get("val")
        return (
            isinstance(value, torch.Tensor)
            and value.dtype == torch.float32
            and value.dim() > 0
            and node.target not in LAYOUT
            and str(value.shape[0]) == str(self.items)
            and all(isinstance(size, int) for size in value.shape[1:])
        )


def _depending_on(own: set[Node], graph: Graph) -> Mapping[Node, bool]:
    """Whether a node depends on some input, and on none but these; constants aren't in it."""
    alone: dict[Node, bool] = {}
    for node in graph.nodes:
        before = [alone[each] for each in node.all_input_nodes if each in alone]
        if node.op == "placeholder":
            alone[node] = node in own
        elif before:
            alone[node] = all(before)
    return alone


def _ahead(module: GraphModule, walk: _Walk, own: Sequence[str]) -> GraphModule:
    graph, copies = Graph(), dict[Node, Node]()
    for name in own:
        copies[walk.inputs[name]] = graph.placeholder(name)
    needed = _behind(walk.stored)
    for node in module.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    flat = [
        graph.call_function(aten.reshape.default, (copies[node], [-1, width]))
        for node, width in zip(walk.stored, walk.widths, strict=True)
    ]
    graph.output(graph.call_function(aten.cat.default, (flat, 1)))
    return GraphModule(module, graph)


def _rest(
    module: GraphModule, walk: _Walk, names: Sequence[str], own: Sequence[str]
) -> GraphModule:
    graph, copies = Graph(), dict[Node, Node]()
    for name in names:
        if name == own[0]:
            vectors = graph.placeholder(name)
        elif name not in own:
            copies[walk.inputs[name]] = graph.placeholder(name)
    copies.update(_unpacked(graph, vectors, walk))
    for node in module.graph.nodes:
        if node not in walk.kept or node in copies:
            continue
        if walk.is_items(node):
            copies[node] = graph.call_function(aten.sym_size.int, (vectors, 0))
        elif node.op == "output":
            (results,) = node.args
            values = [copies[each] for each in results]
            graph.output(values[0] if len(values) == 1 else tuple(values))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return GraphModule(module, graph)


def _unpacked(graph: Graph, vectors: Node, walk: _Walk) -> Iterator[tuple[Node, Node]]:
    start = 0
    for node, width in zip(walk.stored, walk.widths, strict=True):
        part = vectors
        if len(walk.stored) > 1:
            part = graph.call_function(aten.slice.Tensor, (vectors, 1, start, start + width))
        if _tail(node) != [width]:
            part = graph.call_function(aten.reshape.default, (part, [-1, *_tail(node)]))
        yield node, part
        start += width


def _behind(nodes: Mapping[Node, None]) -> set[Node]:
    nodes_behind, todo = set[Node](), list(nodes)
    while todo:
        node = todo.pop()
        if node not in nodes_behind:
            nodes_behind.add(node)
            todo += node.all_input_nodes
    return nodes_behind


def _tail(node: Node) -> list[int]:
    """The sizes behind the items."""
    return list(map(operator.index, node.meta["val"].shape[1:]))
