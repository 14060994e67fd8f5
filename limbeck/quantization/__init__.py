"""int8 through torchao's PT2E: export, prepare (observers or fake quantizers), calibrate or train, convert.

A converted graph cannot be stored without pickle. What is stored is the *prepared* model's state; loading
builds, exports, prepares, loads strictly and converts, which gives the same bits.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck import checkpoint, models
from limbeck.checkpoint import Quantization, Spec
from limbeck.components import Component, bind
from limbeck.errors import DataError, ParamsError
from limbeck.models import Network, torch_dtype
from limbeck.quantization.arithmetic import ARITHMETICS
from limbeck.quantization.observers import OBSERVERS
from limbeck.quiet import quiet


def static(quantization: Quantization) -> Any:
    """Every convolution and linear layer, weights per output channel, less those that stay float."""
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        MovingAveragePerChannelMinMaxObserver,
        PerChannelMinMaxObserver,
    )
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    from limbeck.quantization.quantizer import OnnxRuntimeQuantizer
    from limbeck.quantization.tables import SMALLEST_STEP

    arithmetic = ARITHMETICS[quantization.arithmetic]
    if quantization.trained:
        ranges = FusedMovingAvgObsFakeQuantize.with_args(eps=SMALLEST_STEP)
        weight_ranges = FusedMovingAvgObsFakeQuantize.with_args(
            eps=SMALLEST_STEP, observer=MovingAveragePerChannelMinMaxObserver
        )
    else:
        observer, settings = bind(quantization.observer, OBSERVERS, "observer")()
        ranges = observer.with_args(eps=SMALLEST_STEP, **settings)
        weight_ranges = PerChannelMinMaxObserver.with_args(eps=SMALLEST_STEP)
    whole = torch.iinfo(arithmetic.activations)
    activations = QuantizationSpec(
        dtype=arithmetic.activations, quant_min=whole.min, quant_max=whole.max,
        qscheme=torch.per_tensor_affine, observer_or_fake_quant_ctr=ranges,
    )  # fmt: skip
    lowest, highest = arithmetic.weights
    weights = QuantizationSpec(
        dtype=torch.int8, quant_min=lowest, quant_max=highest,
        qscheme=torch.per_channel_symmetric, ch_axis=0, observer_or_fake_quant_ctr=weight_ranges,
    )  # fmt: skip
    quantizer = OnnxRuntimeQuantizer(quantization.table_bits, quantization.weight_bits)
    for name in quantization.float_layers:
        quantizer.set_module_name_qconfig(name, None)
    return quantizer.set_global(QuantizationConfig(activations, activations, weights, None, quantization.trained))


SCHEMES: dict[str, Callable[..., Any]] = {"static": static}


def prepare(network: Network, quantization: Quantization, shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    """A graph of the float network with observers, or with fake quantizers where it is to be trained.

    Norms are folded into the layers before them, also where training follows: int8 is what runs in the end, and a
    step without norms is a short one. `network` is left as it is; the graph takes batches of 2 and more.

    Raises:
        ParamsError: tables are to have 4 bits, and there are none; or weights are, and there are no layers between two others.

    """
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        from limbeck.quantization.modes import switchable
        from limbeck.quantization.quantizer import MULTIPLYING

        network = copy.deepcopy(network)
        network.train(quantization.trained)
        example = torch.zeros((2, *shape), dtype=dtype)
        batch = torch.export.Dim("batch", min=2)
        graph = torch.export.export(network, (example,), dynamic_shapes=({0: batch},)).module()
        if quantization.table_bits == 4 and not graph.graph.find_nodes(
            op="call_function", target=torch.ops.aten.embedding.default
        ):
            raise ParamsError(
                "quantize.table_bits is 4, and this student has no table of embeddings. Set it to 8, or leave it out; for weights "
                "that are multiplied there is quantize.weight_bits."
            )
        num_layers = sum(node.target in MULTIPLYING for node in graph.graph.nodes)
        if quantization.weight_bits == 4 and num_layers < 3:
            raise ParamsError(
                f"quantize.weight_bits is 4, and this student has {num_layers} layers: the first and the last keep 8 bits, and "
                "none is left. Set it to 8, or choose a deeper student.model."
            )
        quantizer = bind(Component(use=quantization.use), SCHEMES, "quantization")(quantization)
        # not prepare_qat_pt2e, which keeps norms in training: its patterns take seconds to match, and none of them
        # knows a layer that stays float
        return switchable(prepare_pt2e(graph, quantizer))


def convert(prepared: nn.Module) -> nn.Module:
    """The quantized graph [B >= 2, ...] -> logits [B, K]; `prepared` is left as it is."""
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        from limbeck.quantization.biases import round_biases_
        from limbeck.quantization.modes import switchable

        copied: Any = copy.deepcopy(prepared)
        round_biases_(copied)
        return switchable(convert_pt2e(switchable(copied).eval())).eval()


def calibrate_(prepared: nn.Module, x: NDArray[np.generic], batch_size: int) -> None:
    """Show samples [N, ...] to the observers, in place, a batch at a time: memory stays that of one batch.

    Raises:
        DataError: fewer than two samples, which is what the graph takes at least.

    """
    if len(x) < 2:
        raise DataError(
            f"the calibration split has {len(x)} sample(s), expected 2 and more; raise data.split.calibration."
        )
    prepared.eval()
    with torch.no_grad():
        for start in range(0, max(1, len(x) - 1), batch_size):
            batch = np.array(x[start : start + batch_size])
            if len(batch) > 1:  # the graph takes batches of 2 and more
                prepared(torch.from_numpy(batch))


def calibrated(
    network: Network, spec: Spec, quantization: Quantization, x: NDArray[np.generic], batch_size: int
) -> nn.Module:
    """A float network's quantized graph by samples [N, ...] alone, as it comes: nothing is judged.

    Raises:
        DataError: fewer than two samples.
        ParamsError: 4 bits are asked for where nothing can have them.

    """
    prepared = prepare(network, quantization, spec.shape, torch_dtype(spec.dtype))
    calibrate_(prepared, x, batch_size)
    return convert(prepared)


@contextmanager
def settled(prepared: nn.Module) -> Iterator[nn.Module]:
    """Within, answers do not move the ranges of fake quantizers, which observe in evaluation mode, too."""
    with quiet():
        from torchao.quantization.pt2e import disable_observer, enable_observer

    prepared.apply(disable_observer)
    try:
        yield prepared
    finally:
        prepared.apply(enable_observer)


def describe(
    use: str,
    arithmetic: str,
    observer: Component,
    *,
    float_layers: tuple[str, ...] = (),
    trained: bool = False,
    table_bits: Literal[4, 8] = 8,
    weight_bits: Literal[4, 8] = 8,
) -> Quantization:
    """What a checkpoint must remember to build the same prepared model."""
    from importlib.metadata import version

    return Quantization(
        use=use,
        arithmetic=arithmetic,
        observer=observer,
        float_layers=float_layers,
        trained=trained,
        table_bits=table_bits,
        weight_bits=weight_bits,
        versions={name: version(name) for name in ("torch", "torchao")},
    )


def save(folder: Path, spec: Spec, prepared: nn.Module) -> None:
    """Write the checkpoint of a prepared model; `spec.quantization` says how it was prepared."""
    assert spec.quantization is not None
    checkpoint.save(folder, spec, prepared.state_dict())


def load(folder: Path) -> tuple[Spec, nn.Module]:
    """Build the network of any checkpoint: float as it is, quantized ones prepared, filled and converted.

    Raises:
        CheckpointError: the folder is corrupt, or its weights do not fit its spec.

    """
    spec, state = checkpoint.read(folder)
    if spec.quantization is None:
        return models.load(folder)
    prepared = prepare(models.build(spec), spec.quantization, spec.shape, torch_dtype(spec.dtype))
    _shape_like_(prepared, state)
    checkpoint.load_strictly_(prepared, state, folder)
    return spec, convert(prepared)


def _shape_like_(prepared: nn.Module, state: dict[str, Tensor]) -> None:
    """Give observers' buffers, which are empty before the first batch, the stored shapes."""
    for name, buffer in dict(prepared.named_buffers()).items():
        if name in state and buffer.shape != state[name].shape and buffer.numel() <= 1:
            buffer.resize_(state[name].shape)
