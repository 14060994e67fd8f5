"""Blocks that may be skipped: where a shortcut leads around a block, its input can stand for its output.

A block says so itself, by `is_residual = True`: then output and input have one shape, and without its branch the network is
still one. What was skipped stays in its place, so that all others keep their names.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class Skipped(nn.Module):
    """Where a block was: its input, whatever else it was given."""

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        """[...] -> the same."""
        return x


def residual(body: nn.Module) -> list[str]:
    """The names of the blocks that may be skipped, in the network's order; no block within another."""
    found: list[str] = []
    for name, module in body.named_modules():
        if getattr(module, "is_residual", False) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def skipped(body: nn.Module) -> tuple[str, ...]:
    """The names of those that are."""
    return tuple(name for name, module in body.named_modules() if isinstance(module, Skipped))


def skip_(body: nn.Module, names: Iterable[str]) -> None:
    """Skip named blocks, in place."""
    for name in names:
        body.set_submodule(name, Skipped())


@contextmanager
def without(body: nn.Module, name: str) -> Iterator[None]:
    """Skip a block for a while."""
    block = body.get_submodule(name)
    skip_(body, [name])
    try:
        yield
    finally:
        body.set_submodule(name, block)
