import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge.session import open_session
from limbeck.params import Instructions, QuantizeParams
from limbeck.quantization.arithmetic import ARITHMETICS, BEST_FOR, arithmetic_of

INT16 = torch.iinfo(torch.int16)


def sums_of_two(name: str) -> list[int]:
    """The largest sums of two products that one instruction of x86 without VNNI adds in 16 bits."""
    arithmetic = ARITHMETICS[name]
    whole = torch.iinfo(arithmetic.activations)
    products = [a * w for a, w in itertools.product((whole.min, whole.max), arithmetic.weights)]
    return [a + b for a, b in itertools.product(products, products)]


def test_the_params_know_every_arithmetic_and_every_instruction_set() -> None:
    assert set(get_args(QuantizeParams.model_fields["arithmetic"].annotation)) == {"auto", *ARITHMETICS}
    assert set(get_args(Instructions)) == set(BEST_FOR)


def test_sums_of_two_products_fit_where_the_processor_adds_them_in_16_bits() -> None:
    assert all(INT16.min <= found <= INT16.max for found in sums_of_two("u8s7"))
    assert not all(INT16.min <= found <= INT16.max for found in sums_of_two("u8s8"))
    assert BEST_FOR["any"] == BEST_FOR["avx2"] == "u8s7"


def test_auto_follows_the_target_and_a_name_stands() -> None:
    assert [arithmetic_of("auto", name) for name in get_args(Instructions)] == list(BEST_FOR.values())
    assert {arithmetic_of("s8s8", name) for name in get_args(Instructions)} == {"s8s8"}


@pytest.mark.parametrize("name", ARITHMETICS)
def test_every_tensor_of_a_prepared_network_gets_its_integers(name: str, calibrated: Callable[..., nn.Module]) -> None:
    arithmetic = ARITHMETICS[name]
    whole = torch.iinfo(arithmetic.activations)
    found: set[Any] = {
        (module.dtype, module.quant_min, module.quant_max, module.qscheme)
        for module in calibrated(name).modules()
        if hasattr(module, "quant_min")
    }
    assert found == {
        (arithmetic.activations, whole.min, whole.max, torch.per_tensor_affine),
        (torch.int8, *arithmetic.weights, torch.per_channel_symmetric),
    }


@pytest.mark.parametrize("name", ARITHMETICS)
def test_files_of_every_arithmetic_open_where_sums_are_exact_though_layers_are_alike(name: str, tmp_path: Path) -> None:
    spec = Spec(
        model=Component.model_validate({"use": "resnet", "width": 4, "depth": 8}), shape=(6, 6, 2), dtype="uint8",
        classes=("a", "b", "c"), mean=(120.0,) * 2, std=(60.0,) * 2,
    )  # fmt: skip
    torch.manual_seed(0)
    network = models.build(spec).eval()
    x = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 2), dtype=np.uint8)
    described = quantization.describe("static", name, Component.model_validate({"use": "min_max"}))
    prepared = quantization.prepare(network, described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 16)
    export.to_onnx(tmp_path / "q.onnx", quantization.convert(prepared), spec, 18, {})
    assert np.isfinite(export.run(tmp_path / "q.onnx", x)).all()
    assert np.isfinite(open_session(tmp_path / "q.onnx", 1).run(None, {"input": x})[0]).all()
