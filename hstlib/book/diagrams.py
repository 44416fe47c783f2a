"""Block diagrams of modules: their parts, the shapes of the outputs, and what feeds what."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Operators that only move or count values. They get no box: a diagram connects what they connect.
_WITHOUT_BOX = {
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "movedim", "slice", "expand",
    "unsqueeze", "squeeze", "getitem", "sym_size", "contiguous", "clone", "to", "chunk", "split",
    "select", "_assert_tensor_metadata", "alias", "detach", "lift_fresh_copy",
    "full_like", "view_as",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One box of a diagram.

    Attributes:
        name: Name of the box, unique in the diagram.
        label: Name and class of a sub-module on two lines, or the name of an operator or input.
        shape: Shape of the output, without the batch axis.
        sources: Names of the boxes whose outputs it reads.
    """

    name: str
    label: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]


def block_diagram(module: nn.Module, inputs: dict[str, Tensor]) -> list[Block]:
    """Trace a module with ``torch.export`` and draw each call of a direct child as one box.

    Args:
        module: Module to trace; it is switched to evaluation mode.
        inputs: Arguments of its ``forward`` by name, with batch size 2.

    Returns:
        The boxes that lead to the output, in the order of their computation, inputs first.
    """
    program = torch.export.export(module.eval(), (), inputs)
    blocks: dict[str, Block] = {}
    block_of_node: dict[str, str] = {}  # names
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            block_of_node[node.name] = node.name
            blocks[node.name] = Block(node.name, node.name, _shape(node), ())
        elif node.op == "call_function":
            _add(node, blocks, block_of_node)
    return _leading_to_the_output(list(blocks.values()))


def _add(node: torch.fx.Node, blocks: dict[str, Block], block_of_node: dict[str, str]) -> None:
    """Add a graph node to the box of its child module or of its source, or give it a new box."""
    nodes = node.all_input_nodes
    sources = [block_of_node[source.name] for source in nodes if source.name in block_of_node]
    operator = str(getattr(node.target, "__name__", node.target)).split(".")[0].rstrip("_")
    modules = list(node.meta.get("nn_module_stack", {}).items())
    if len(modules) > 1:  # the first is the traced module itself
        call, (path, module_class) = modules[1]
        name = str(call)  # differs between calls of one child
        label = f"{path}\n{str(module_class).split('.')[-1]}"
    elif operator in _WITHOUT_BOX and sources:
        block_of_node[node.name] = sources[0]
        return
    else:
        name, label = node.name, operator
    block_of_node[node.name] = name
    earlier = blocks[name].sources if name in blocks else ()
    others = [source for source in dict.fromkeys([*earlier, *sources]) if source != name]
    blocks[name] = Block(name, label, _shape(node), tuple(others))


def _leading_to_the_output(blocks: Sequence[Block]) -> list[Block]:
    """Drop the boxes that the last one, the output, does not depend on."""
    needed = {blocks[-1].name}
    for block in reversed(blocks):
        if block.name in needed:
            needed |= set(block.sources)
    return [block for block in blocks if block.name in needed]


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
