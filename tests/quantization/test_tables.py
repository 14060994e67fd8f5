"""Tables of embeddings: what they become, also where they are a layer's weights and where they are trained."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from limbeck import export, quantization
from limbeck.checkpoint import Quantization, Spec
from limbeck.components import Component
from limbeck.errors import ParamsError
from limbeck.prediction import predict
from limbeck.quantization.sensitivity import Rounded
from limbeck.quantization.tables import Bits, rows_in
from tests.quantization.test_float_layers import SPECS
from tests.test_zoo import history_of, samples, seasoned

MIN_MAX = Component(use="min_max")
ROWS = 260
"""So many make a table worth packing."""
TIED = {
    "sequential": {"use": "sequential", "width": 6, "depth": 1, "heads": 1, "hidden": 5},
    "two_tower": {"use": "two_tower", "width": 6, "hidden": 5},
}


def rounded(table: Tensor, bits: Bits) -> Tensor:
    """A table as the file has it."""
    spec = rows_in(bits, trained=False)
    observer = spec.observer_or_fake_quant_ctr(
        dtype=spec.dtype, quant_min=spec.quant_min, quant_max=spec.quant_max, qscheme=spec.qscheme, ch_axis=spec.ch_axis
    )
    observer(table)
    found: Tensor = Rounded(observer)(table)
    return found


def described(bits: Bits, *, trained: bool = False) -> Quantization:
    return quantization.describe("static", "u8s7", MIN_MAX, trained=trained, table_bits=bits)


def calibrated(spec: Spec, how: Quantization, x: NDArray[np.generic]) -> nn.Module:
    prepared = quantization.prepare(seasoned(spec), how, spec.shape, torch.int32)
    quantization.calibrate_(prepared, x, 24)
    return prepared


def shipped(
    folder: Path, spec: Spec, how: Quantization, prepared: nn.Module, x: NDArray[np.generic]
) -> onnx.ModelProto:
    """What is exported of a checkpoint, which answers to the bit like the model that was stored."""
    quantization.save(folder / "q", spec.model_copy(update={"quantization": how}), prepared)
    again, loaded = quantization.load(folder / "q")
    assert again.quantization == how
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))
    export.to_onnx(folder / "q.onnx", loaded, spec, 18, {})
    export.check_parity(folder / "q.onnx", loaded, x, max_difference=0.03, min_equal=0.9)
    return onnx.load(folder / "q.onnx")


@given(st.integers(0, 1000), st.sampled_from([1e-4, 1.0, 50.0]))
def test_four_bits_are_sixteen_values_a_row_and_no_worse_than_any_range_by_its_ends(seed: int, size: float) -> None:
    table = size * torch.randn(6, 24, generator=torch.Generator().manual_seed(seed))
    found = rounded(table, 4)
    step = table.abs().amax(1, keepdim=True) / 7
    plainly = (table / step).round().clamp(-8, 7) * step
    assert all(len(row.unique()) <= 16 for row in found)
    assert ((found - table).square().sum(1) <= (plainly - table).square().sum(1) * (1 + 1e-5)).all()
    assert (rounded(table, 8) - table).square().sum() < 0.02 * (found - table).square().sum()


def test_a_row_of_zeros_stays_one_and_a_row_has_nothing_to_do_with_the_others() -> None:
    table = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    table[1], table[2] = 0.0, 1000 * table[3]
    found = rounded(table, 4)
    assert torch.equal(found[1], torch.zeros(8))
    torch.testing.assert_close(found[2], 1000 * found[3])


def test_a_range_is_of_the_table_as_it_is_now() -> None:
    observer = rows_in(4, trained=False).observer_or_fake_quant_ctr(
        dtype=torch.int8, quant_min=-8, quant_max=7, qscheme=torch.per_channel_symmetric, ch_axis=0
    )
    observer(torch.full((2, 3), 50.0))
    observer(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, 0.0]]))
    assert float(observer.calculate_qparams()[0].max()) < 1


@pytest.mark.parametrize(("use", "bits"), [pytest.param("sequential", 8, marks=pytest.mark.slow), ("two_tower", 4)])
def test_a_table_that_is_the_last_layers_weights_learns_as_one_tensor_and_comes_back_to_the_bit(
    use: str, bits: Bits, tmp_path: Path
) -> None:
    spec = history_of(TIED[use], 4, 8).model_copy(update={"classes": ("a",) * ROWS})
    x, how = samples(spec), described(bits, trained=True)
    prepared = calibrated(spec, how, x)
    before = {name: value.clone() for name, value in prepared.named_parameters()}
    prepared.train()
    labels = torch.from_numpy(x[:, 0].clip(1).astype(np.int64)) - 1
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.3)
    losses = []
    for _ in range(6):
        losses.append(functional.cross_entropy(prepared(torch.from_numpy(x)), labels))
        optimizer.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < losses[0]
    assert not any(torch.equal(value, before[name]) for name, value in prepared.named_parameters())

    written = shipped(tmp_path, spec, how, prepared, x)
    width = spec.model.keywords["width"]
    tables = [t for t in written.graph.initializer if tuple(t.dims) in ((ROWS, width), (ROWS // 2, width))]
    assert [table.data_type for table in tables] == [onnx.TensorProto.INT8 if bits == 8 else onnx.TensorProto.UINT8]


def test_a_table_of_four_bits_ships_two_numbers_to_a_byte_in_plain_onnx(tmp_path: Path) -> None:
    model = Component.model_validate({**SPECS["text_cnn"].model.model_dump(), "rows": ROWS})
    spec, how = SPECS["text_cnn"].model_copy(update={"model": model}), described(4)
    x = samples(spec)
    written = shipped(tmp_path, spec, how, calibrated(spec, how, x), x)
    assert {opset.domain for opset in written.opset_import} == {""}, "no operator of one runtime alone"
    types = {tuple(tensor.dims): tensor.data_type for tensor in written.graph.initializer}
    assert types[ROWS // 2, model.keywords["width"]] == onnx.TensorProto.UINT8
    assert (ROWS, model.keywords["width"]) not in types


def test_a_network_without_a_table_refuses_four_bits_for_it() -> None:
    with pytest.raises(ParamsError, match="table_bits is 4, and this student has no table of embeddings.* Set it to 8"):
        quantization.prepare(seasoned(SPECS["ds_cnn"]), described(4), SPECS["ds_cnn"].shape, torch.uint8)


def test_a_checkpoint_with_usual_tables_is_written_as_it_always_was() -> None:
    assert "table_bits" not in described(8).model_dump()
    assert Quantization.model_validate(described(8).model_dump()).table_bits == 8
    assert described(4).model_dump()["table_bits"] == 4
