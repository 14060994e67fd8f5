"""Tensors from outside: a file read without running any of it, and paired with a model's own by name or by order.

A model's tensors are its state dict. Two that were defined in the same order can be paired where their names differ:
`match: order` asks for equal shapes and equal last words (`weight`, `running_mean`) all along.
"""

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from limbeck.atomic import sha256 as sha256_of
from limbeck.errors import CheckpointError

DATA_FOLDER = "LIMBECK_DATA"
SAFETENSORS = ".safetensors"
COUNTER = "num_batches_tracked"
"""A norm's count of batches: older files lack it, and no answer depends on it."""
SHOWN = 5


def locate(path: Path) -> Path:
    """Where a file or folder of params.yaml lies: in the folder of params.yaml, or else below LIMBECK_DATA.

    Raises:
        CheckpointError: in neither.

    """
    places = [Path.cwd() / path]
    if DATA_FOLDER in os.environ:
        places.append(Path(os.environ[DATA_FOLDER]) / path)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        hint = (
            ""
            if DATA_FOLDER in os.environ
            else f" Set {DATA_FOLDER} to the folder of your data, or write a whole path."
        )
        raise CheckpointError(f"{path} is missing; looked for {' and '.join(str(place) for place in places)}.{hint}")
    return found


def read(file: Path, *, sha256: str | None, key: str | None, prefix: str) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or what `torch.save` wrote, with `weights_only=True`.

    Args:
        file: the file.
        sha256: what its content must be; None takes any.
        key: the entry that holds the tensors; None: the file is the state dict.
        prefix: what the wanted names begin with; it is taken off, and others are left out.

    Raises:
        CheckpointError: the file has another digest, holds more than tensors, has no such key or prefix, or a tensor
            that is not finite.

    """
    if sha256 is not None and (found := sha256_of(file)) != sha256:
        raise CheckpointError(
            f"{file} has sha256 {found}, expected {sha256}. If it was changed on purpose, write the new digest into "
            "teacher.sha256; else fetch the file again."
        )
    loaded = _load(file)
    tensors = _entry(loaded, key, file)
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not named:
        raise CheckpointError(f"no tensor of {file} begins with {prefix!r}; they are {_some(list(tensors))}.")
    for name, tensor in named.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{file}: {name} holds numbers that are not finite; the training behind it diverged.")
    return named


def _load(file: Path) -> Any:
    try:
        if file.suffix == SAFETENSORS:
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickles, which are refused or read all the same
            return torch.load(file, weights_only=True, map_location="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{file} is no safetensors file: {error}.") from None
    except UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().splitlines() or [str(error)]
        raise CheckpointError(
            f"{file} is no torch file of plain tensors ({reason[0]}). Unpickling anything else runs code from the file, so "
            "it is refused. Where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        ) from None
    except Exception as error:  # bytes that are no such file fail in ways of their own
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{file} cannot be read: {line}. Is it whole? It has {file.stat().st_size:,} bytes."
        ) from None


def _entry(loaded: Any, key: str | None, file: Path) -> dict[str, Tensor]:
    if key is not None:
        if not isinstance(loaded, dict) or key not in loaded:
            raise CheckpointError(f"{file} has no entry {key!r}; {_next_key(loaded)}")
        loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(map(_is_named, loaded.items())):
        raise CheckpointError(f"{file}{f' at {key!r}' if key else ''} is no state dict; {_next_key(loaded)}")
    return dict(loaded)


def _is_named(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _next_key(loaded: Any) -> str:
    """What `key` could be."""
    if not isinstance(loaded, dict):
        return f"found a {type(loaded).__name__}, expected tensors by name."
    fitting = [
        str(name) for name, value in loaded.items()
        if isinstance(value, dict) and value and all(map(_is_named, value.items()))
    ]  # fmt: skip
    if fitting:
        return f"tensors by name lie under {' or '.join(f'key: {name}' for name in fitting)}."
    if loaded and all(map(_is_named, loaded.items())):
        return "the file is a state dict itself: key: null."
    return f"it holds {_some([str(name) for name in loaded])}."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


@dataclass(frozen=True)
class Pairing:
    """What of a file goes where, and what does not fit.

    state: the model's names with the file's tensors. missing, unexpected: names of the model, of the file.
    shapes: (the model's name, expected, found).
    """

    state: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def fits(self) -> bool:
        """Whether every tensor of the one has its place in the other."""
        return not (self.missing or self.unexpected or self.shapes)

    def without(self, head: str) -> "Pairing":
        """The same where the submodule `head` takes nothing from the file, unless all of it fits."""
        ours = f"{head}."
        faults = [
            name for name in (*self.missing, *self.unexpected, *(s[0] for s in self.shapes)) if name.startswith(ours)
        ]
        if not faults:
            return self
        return Pairing(
            {name: tensor for name, tensor in self.state.items() if not name.startswith(ours)},
            tuple(name for name in self.missing if not name.startswith(ours)),
            tuple(name for name in self.unexpected if not name.startswith(ours)),
            tuple(fault for fault in self.shapes if not fault[0].startswith(ours)),
        )

    def __str__(self) -> str:
        """One line per kind of fault, each naming some of the tensors."""
        lines = []
        for title, faults in (
            ("the file lacks", self.missing),
            ("the model has no", self.unexpected),
            ("other shapes", [f"{name} expected {expected}, found {found}" for name, expected, found in self.shapes]),
        ):
            if faults:
                more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
                lines.append(f"  {title}: {', '.join(islice(faults, SHOWN))}{more}")
        return "\n".join(lines)


def pair(own: Mapping[str, Tensor], found: Mapping[str, Tensor], match: Literal["names", "order"]) -> Pairing:
    """Pair a file's tensors with a model's; floats take the model's own dtype.

    A norm's `num_batches_tracked` is taken where it is named and left where it is not.
    """
    if match == "order":
        found = _renamed(own, found)
    state, shapes = {}, []
    for name in own.keys() & found.keys():
        if own[name].shape == found[name].shape:
            state[name] = found[name].to(own[name].dtype)
        else:
            shapes.append((name, tuple(own[name].shape), tuple(found[name].shape)))
    return Pairing(
        state,
        tuple(name for name in own if name not in found and not name.endswith(COUNTER)),
        tuple(name for name in found if name not in own and not name.endswith(COUNTER)),
        tuple(sorted(shapes)),
    )


def _renamed(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under the names that the model gives the same places; those without one keep theirs."""
    renamed = {}
    for ours, theirs in zip_longest(counted(own), counted(found)):
        if theirs is not None:
            is_same_kind = ours is not None and ours.rpartition(".")[2] == theirs.rpartition(".")[2]
            renamed[ours if is_same_kind else f"{theirs} (in the file)"] = found[theirs]
    return renamed


def counted(state: Mapping[str, Tensor]) -> list[str]:
    """The names that matter, in the order of definition: all but norms' counts of batches."""
    return [name for name in state if not name.endswith(COUNTER)]


def distance(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> int:
    """How many tensors of either have no partner of the same shape in the other, whatever their names."""
    ours, theirs = (Counter(tuple(state[name].shape) for name in counted(state)) for state in (own, found))
    return sum(((ours - theirs) + (theirs - ours)).values())
