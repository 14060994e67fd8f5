"""The one checkpoint: `model.json` says how to build the network, `weights.safetensors` fills it.

Never pickle. `cuts` are the widths that pruning left, so that no pruning library is needed to load;
`quantization` says how the prepared model that the weights belong to comes about.
"""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from safetensors import SafetensorError

from limbeck.atomic import replace, write_json
from limbeck.components import Component
from limbeck.errors import CheckpointError

if TYPE_CHECKING:  # torch takes seconds, and flows ask for digests alone
    from torch import Tensor, nn

SPEC = "model.json"
WEIGHTS = "weights.safetensors"
QUALITY = "quality.json"
"""Beside them, where it was measured: what the network is worth on validation, for whoever would measure it again."""


class Cut(BaseModel):
    """The final width of one named module: `(in, out)` and groups (1 where the module has none)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: int
    outputs: int
    groups: int = 1


class Quantization(BaseModel):
    """How the float network was turned into the prepared one whose state is stored.

    `observer` took the ranges of activations from the calibration split; where the network was `trained` quantized,
    they come from training. `float_layers` are modules of the network that compute in float, `table_bits` those of each
    number in a table of embeddings, `weight_bits` those of weights between the first layer and the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str
    arithmetic: str
    observer: Component
    float_layers: tuple[str, ...]
    trained: bool
    versions: dict[str, str]
    table_bits: Literal[4, 8] = 8
    weight_bits: Literal[4, 8] = 8

    @model_serializer(mode="wrap")
    def _without_bits_that_are_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        # such keys are younger than the format: a file that does not use one stays as it was
        for key in [key for key in ("table_bits", "weight_bits") if written[key] == 8]:
            del written[key]
        return written


class Spec(BaseModel):
    """All that is needed to build a network before its weights are read.

    `mean` and `std` are the network's own normalization, by channel, in raw units; `size` is what images are scaled
    to before it, None as they come. `cuts` are the widths, `skipped` the blocks that pruning took.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Component
    shape: tuple[int, ...]
    dtype: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    cuts: dict[str, Cut] = {}
    skipped: tuple[str, ...] = ()
    quantization: Quantization | None = None
    weights_sha256: str = ""

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        if self.size is None:  # such keys are younger than the format: a file that does not use one stays as it was
            del written["size"]
        if not self.skipped:
            del written["skipped"]
        return written


def digest_of(folder: Path) -> str:
    """The sha256 that stands for a checkpoint's content: its `model.json`, which holds the weights' own.

    Raises:
        CheckpointError: there is none.

    """
    return hashlib.sha256(_spec_in(folder)).hexdigest()


def _spec_in(folder: Path) -> bytes:
    try:
        return (folder / SPEC).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} holds no {SPEC}; expected a Limbeck checkpoint. Run the stage that writes it."
        ) from None


def note_quality(folder: Path, quality: float, *, metric: str, data_digest: str) -> None:
    """Write down what the network of a checkpoint is worth on the validation split of some data."""
    write_json(folder / QUALITY, {"metric": metric, "data_digest": data_digest, "validation": quality})


def noted_quality(folder: Path, *, metric: str, data_digest: str) -> float | None:
    """What was written down for this metric and these data; None where nothing was."""
    if not (folder / QUALITY).is_file():
        return None
    noted = json.loads((folder / QUALITY).read_text(encoding="utf-8"))
    return noted["validation"] if (noted["metric"], noted["data_digest"]) == (metric, data_digest) else None


def save(folder: Path, spec: Spec, state: "dict[str, Tensor]") -> None:
    """Write a checkpoint. Tensors that share memory are stored once each, all contiguous, sorted by name."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: state[name].detach().to("cpu").contiguous().clone() for name in sorted(state)}
    with replace(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
    written = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    write_json(folder / SPEC, spec.model_copy(update={"weights_sha256": written}).model_dump(mode="json"))


def read(folder: Path) -> "tuple[Spec, dict[str, Tensor]]":
    """Read a checkpoint back, checked.

    Raises:
        CheckpointError: a file is missing, no checkpoint, truncated or altered.

    """
    try:
        raw: Any = json.loads(_spec_in(folder))
        spec = Spec.model_validate(raw)
    except (ValueError, ValidationError) as error:
        raise CheckpointError(
            f"{folder / SPEC} is no checkpoint: {error}. Run the stage that writes it again."
        ) from None
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != spec.weights_sha256:
            raise CheckpointError(
                f"{path} is corrupt or truncated: expected sha256 {spec.weights_sha256[:16]}..., found {found[:16]}... "
                f"({path.stat().st_size} bytes). `dvc checkout` restores it, or run the stage that writes it again."
            )
        return spec, load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing. `dvc checkout` restores it.") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}. `dvc checkout` restores it.") from None


def load_strictly_(module: "nn.Module", state: "dict[str, Tensor]", origin: Path) -> None:
    """Fill a module, in place.

    Raises:
        CheckpointError: naming every tensor that is missing, unknown, or of another shape or dtype.

    """
    import torch

    own = module.state_dict()
    faults = [f"{name}: missing, expected {tuple(own[name].shape)}" for name in own if name not in state]
    faults += [f"{name}: unknown" for name in state if name not in own]
    for name in own.keys() & state.keys():
        expected, found = own[name], state[name]
        if expected.shape != found.shape or expected.dtype != found.dtype:
            faults.append(
                f"{name}: expected {tuple(expected.shape)} {expected.dtype}, found {tuple(found.shape)} {found.dtype}"
            )
    if faults:
        shown = "\n  ".join(sorted(faults)[:12])
        more = f"\n  and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise CheckpointError(
            f"the weights of {origin} do not fit the model that its {SPEC} describes:\n  {shown}{more}"
        )
    versioned = OrderedDict(state)
    # without versions torch takes the state for one of long ago, and an observer sets its smallest step to another value
    versioned._metadata = own._metadata  # type: ignore[attr-defined]
    with torch.no_grad():
        module.load_state_dict(versioned, strict=True)
