"""The paper's block diagrams, read from the modules: who feeds whom, and with what shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Operators that only move values or count them; a diagram shows what they connect.
_PLUMBING = {
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "movedim", "slice", "expand",
    "unsqueeze", "squeeze", "getitem", "sym_size", "contiguous", "clone", "to", "chunk", "split",
    "select", "_assert_tensor_metadata", "alias", "detach", "lift_fresh_copy",
    "full_like", "view_as",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One box of a diagram.

    Attributes:
        name: Unique in the diagram.
        label: What the box does: a sub-module's name and class, or an operator.
        shape: Of its output, without the batch.
        sources: Names of the boxes that feed it.
    """

    name: str
    label: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]


def block_diagram(module: nn.Module, inputs: dict[str, Tensor]) -> list[Block]:
    """Trace a module and fold what happens inside each of its direct children into one box.

    Args:
        module: To be traced in evaluation mode, by ``torch.export``.
        inputs: The arguments of its ``forward`` by name; tensors of batch size 2.

    Returns:
        The boxes in the order of their computation; the inputs come first.
    """
    program = torch.export.export(module.eval(), (), inputs)
    blocks: dict[str, Block] = {}
    owner: dict[str, str] = {}  # graph node -> box
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            owner[node.name] = node.name
            blocks[node.name] = Block(node.name, node.name, _shape(node), ())
        elif node.op == "call_function":
            _add(node, blocks, owner)
    return _reachable(list(blocks.values()))


def _add(node: torch.fx.Node, blocks: dict[str, Block], owner: dict[str, str]) -> None:
    """Put a graph node into the box of its child module, of its source, or of its own."""
    sources = [owner[source.name] for source in node.all_input_nodes if source.name in owner]
    operator = str(getattr(node.target, "__name__", node.target)).split(".")[0].rstrip("_")
    stack = list(node.meta.get("nn_module_stack", {}).items())
    if len(stack) > 1:
        key, (path, kind) = stack[1]
        name = str(key)
        label = f"{path}\n{str(kind).split('.')[-1]}"
    elif operator in _PLUMBING and sources:
        owner[node.name] = sources[0]
        return
    else:
        name, label = node.name, operator
    owner[node.name] = name
    before = blocks[name].sources if name in blocks else ()
    fed_by = [s for s in dict.fromkeys([*before, *sources]) if s != name]
    blocks[name] = Block(name, label, _shape(node), tuple(fed_by))


def _reachable(blocks: Sequence[Block]) -> list[Block]:
    """Leave out what does not lead to the output, which the last box holds."""
    needed = {blocks[-1].name}
    for block in reversed(blocks):
        if block.name in needed:
            needed |= set(block.sources)
    return [block for block in blocks if block.name in needed]


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
