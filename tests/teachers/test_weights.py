import pickle
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import CheckpointError
from limbeck.teachers.weights import distance, locate, pair, read
from tests.models.foreign import Backbone, Chain


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Backbone(num_classes=4).state_dict()


def is_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_torch_file_and_a_safetensors_file_give_the_same_tensors(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    save_file(state(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        assert is_equal(read(tmp_path / name, sha256=None, key=None, prefix=""), state())


def test_key_and_prefix_lead_to_the_tensors_and_what_is_beside_them_is_left_out(tmp_path: Path) -> None:
    wrapped = OrderedDict((f"module.{name}", tensor) for name, tensor in state().items())
    wrapped["ema.fc.weight"] = torch.zeros(1)
    torch.save({"state_dict": wrapped, "epoch": 7}, tmp_path / "w.pt")
    assert is_equal(read(tmp_path / "w.pt", sha256=None, key="state_dict", prefix="module."), state())


def wrong(tmp_path: Path, what: Any, **arguments: Any) -> None:
    torch.save(what, tmp_path / "w.pt")
    read(tmp_path / "w.pt", **{"sha256": None, "key": None, "prefix": "", **arguments})


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        ({"net": state(), "epoch": 3}, {}, r"is no state dict; tensors by name lie under key: net"),
        ({"net": state()}, {"key": "model"}, r"has no entry 'model'; tensors by name lie under key: net"),
        (state(), {"key": "model"}, r"has no entry 'model'; the file is a state dict itself: key: null"),
        (state(), {"prefix": "module."}, r"no tensor of .* begins with 'module.'; they are conv1.weight, bn1.weight"),
        ([1, 2], {}, r"is no state dict; found a list, expected tensors by name"),
        (state(), {"sha256": "0" * 64}, r"has sha256 [0-9a-f]{64}, expected 0{64}. .* teacher.sha256"),
        ({"w": torch.tensor([1.0, float("nan")])}, {}, r"w holds numbers that are not finite"),
    ],
)
def test_a_file_of_another_make_says_what_it_holds(
    tmp_path: Path, what: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        wrong(tmp_path, what, **arguments)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    for name, save in (("torch.pt", torch.save), ("plain.pt", lambda what, path: path.write_bytes(pickle.dumps(what)))):
        save({"w": Evil(trap)}, tmp_path / name)
        with pytest.raises(CheckpointError, match="Unpickling anything else runs code from the file, so it is refused"):
            read(tmp_path / name, sha256=None, key=None, prefix="")
    assert not trap.exists()


def test_a_whole_pickled_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"safetensors.torch.save_file\(model.state_dict\(\)"):
        read(tmp_path / "model.pt", sha256=None, key=None, prefix="")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_file_that_is_cut_short_is_an_error_of_its_own(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    (torch.save if name == "w.pt" else save_file)(state(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"cannot be read|is no torch file|is no safetensors file"):
        read(path, sha256=None, key=None, prefix="")


@given(place=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "w.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] = byte
    path.write_bytes(content)
    with suppress(CheckpointError):
        read(path, sha256=None, key=None, prefix="")


def test_a_file_is_looked_for_beside_params_and_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.pt").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    with pytest.raises(CheckpointError, match=r"w.pt is missing; looked for .*here/w.pt. Set LIMBECK_DATA"):
        locate(Path("w.pt"))
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path / "data"))
    assert locate(Path("w.pt")) == tmp_path / "data" / "w.pt"
    (tmp_path / "here" / "w.pt").touch()
    assert locate(Path("w.pt")) == tmp_path / "here" / "w.pt"


def test_tensors_are_paired_by_name_and_take_the_models_dtype() -> None:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    pairing = pair(state(), halves, "names")
    assert pairing.fits
    assert {tensor.dtype for tensor in pairing.state.values()} == {torch.float32, torch.int64}


def test_a_file_that_counts_no_batches_fits() -> None:
    older = {name: tensor for name, tensor in state().items() if not name.endswith("num_batches_tracked")}
    assert pair(state(), older, "names").fits
    assert pair(state(), older, "order").fits


def renamed(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other modules' names, the same last words."""
    return {f"part{index}.{name.rpartition('.')[2]}": tensor for index, (name, tensor) in enumerate(original.items())}


def test_other_names_in_the_same_order_are_paired_by_order() -> None:
    found = renamed(Chain(num_classes=4).state_dict())
    own = Chain(num_classes=4).state_dict()
    assert not pair(own, found, "names").fits
    pairing = pair(own, found, "order")
    assert pairing.fits
    for ours, theirs in zip(own, found, strict=True):
        assert torch.equal(pairing.state[ours], found[theirs])


def test_order_does_not_pair_a_weight_with_a_bias() -> None:
    own, found = {"norm.weight": torch.zeros(4), "norm.bias": torch.zeros(4)}, {}
    found = {"a.bias": torch.zeros(4), "a.weight": torch.zeros(4)}
    pairing = pair(own, found, "order")
    assert not pairing.fits
    assert pairing.missing == ("norm.weight", "norm.bias")


@given(drop=st.sampled_from(sorted(state())), add=st.booleans(), reshape=st.sampled_from(sorted(state())))
def test_whatever_does_not_fit_is_named(drop: str, add: bool, reshape: str) -> None:
    found = dict(state())
    found[reshape] = torch.zeros(2, 2, 2)
    del found[drop]
    if add:
        found["extra.weight"] = torch.zeros(1)
    pairing = pair(state(), found, "names")
    said = str(pairing)
    assert (drop in said) == (not drop.endswith("num_batches_tracked"))
    assert ("extra.weight" in said) == add
    if drop != reshape:
        assert f"{reshape} expected {tuple(state()[reshape].shape)}, found (2, 2, 2)" in said


def test_without_its_head_a_pairing_forgives_the_head_alone() -> None:
    found = Backbone(num_classes=9).state_dict()
    whole = pair(state(), found, "names")
    assert {name for name, _, _ in whole.shapes} == {"fc.weight", "fc.bias"}
    assert whole.without("fc").fits
    assert not {name for name in whole.without("fc").state if name.startswith("fc.")}
    assert not whole.without("conv1").fits


def test_a_head_that_fits_is_kept() -> None:
    pairing = pair(state(), state(), "names")
    assert pairing.without("fc") is pairing


def test_distance_counts_tensors_without_a_partner_whatever_their_names() -> None:
    assert distance(state(), renamed(state())) == 0
    wider = Backbone(num_classes=4, width=16).state_dict()
    assert distance(state(), wider) == 2 * 6  # all but the head's bias
