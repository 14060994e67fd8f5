import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from limbeck import checkpoint, models, quantization
from limbeck.checkpoint import Cut, Spec
from limbeck.components import Component
from limbeck.data.splits import Meta
from limbeck.errors import CheckpointError, ComponentError, ParamsError
from limbeck.models.ensemble import spec_of
from limbeck.params import InputParams, WeightsTeacher
from limbeck.teachers.outside import Brought, from_checkpoint, from_weights, own_input
from tests.models.foreign import Backbone

FOREIGN = "tests.models.foreign"
MODEL: dict[str, Any] = {"use": "resnet", "width": 8, "depth": 14, "shortcut": "pad"}


def meta_of(shape: tuple[int, ...] = (8, 8, 3), classes: tuple[str, ...] = ("a", "b", "c")) -> Meta:
    return Meta(
        name="made",
        classes=classes,
        shape=shape,
        dtype="uint8",
        counts={},
        mean=(1.0,),
        std=(1.0,),
        overlap=0,
        skipped=0,
        sha256={},
        digest="",
    )


def section(**changes: Any) -> WeightsTeacher:
    return WeightsTeacher.model_validate(
        {
            "use": "weights", "file": "w", "sha256": None, "key": None, "prefix": "", "match": "names", "model": MODEL,
            "input": {"mean": [0.5] * 3, "std": [0.25] * 3, "units": "0..1", "size": None}, "adapt": {"use": "none"},
            **changes,
        }
    )  # fmt: skip


ADAPTED: dict[str, Any] = {
    "use": "head",
    "augment": {"use": "none"},
    "train": {
        "epochs": 1, "batch_size": 8, "optimizer": {"use": "sgd", "momentum": 0.9}, "lr": 0.1, "weight_decay": 0.0,
        "warmup_epochs": 0, "clip_norm": 1.0, "ema_decay": 0.0, "precision": "fp32", "device": "cpu",
        "compile": "auto", "threads": 1,
    },
}  # fmt: skip


def body(num_classes: int = 3, channels: int = 3, **model: Any) -> torch.nn.Module:
    torch.manual_seed(1)
    return models.builder(Component.model_validate({**MODEL, **model}))((channels, 8, 8), num_classes)


def brought(tmp_path: Path, source: torch.nn.Module, meta: Meta | None = None, **changes: Any) -> Brought:
    torch.save(source.state_dict(), tmp_path / "w.pt")
    return from_weights(section(**changes), meta or meta_of(), tmp_path / "w.pt")


def test_weights_fill_the_architecture_and_bring_their_own_normalization(tmp_path: Path) -> None:
    source = body().eval()
    teacher = brought(tmp_path, source)
    assert teacher.spec.mean == (127.5,) * 3, "0..1 units become the raw ones that samples come in"
    assert teacher.spec.std == (63.75,) * 3
    raw = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = source((raw.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        assert torch.allclose(teacher.network(raw), expected, atol=1e-5)
    assert teacher.head == "body.head"
    assert not teacher.has_new_head


def test_a_foreign_architecture_takes_foreign_weights(tmp_path: Path) -> None:
    teacher = brought(tmp_path, Backbone(num_classes=3), model={"use": f"{FOREIGN}:backbone"})
    assert teacher.head == "body.fc"
    models.save(tmp_path / "m", teacher.spec, teacher.network)
    _, again = models.load(tmp_path / "m")
    raw = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(again(raw), teacher.network(raw))


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        ({"mean": [100.0], "std": [50.0], "units": "raw"}, (8, 8, 3), (100.0,) * 3),
        ({"mean": [0.2, 0.4, 0.6], "std": [1, 1, 1], "units": "0..1"}, (8, 8, 1), (51.0, 102.0, 153.0)),
        ({"mean": [1.0, 2.0], "std": [1, 1], "units": "raw"}, (2,), (1.0, 2.0)),
    ],
)
def test_normalization_is_by_channel_in_raw_units(
    given: dict[str, Any], shape: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    mean, _ = own_input(InputParams.model_validate({**given, "size": None}), meta_of(shape))
    assert mean == pytest.approx(expected)


def test_another_number_of_channels_is_refused() -> None:
    given = InputParams(mean=(1.0, 2.0), std=(1.0, 1.0), units="raw", size=None)
    with pytest.raises(ParamsError, match=r"mean has 2 values, samples of \(8, 8, 3\) have 3 channels; give one each"):
        own_input(given, meta_of())


def prefixed(source: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.ModuleDict({"module": source})


@pytest.mark.parametrize(
    ("source", "model", "message"),
    [
        (body(width=16), MODEL, r"other shapes: .* expected .*\n.*those of {use: resnet, width: 16, depth: 14, shortcut: pad}"),
        (body(depth=26), MODEL, r"model has no: blocks.6.*\n.*those of {use: resnet, width: 8, depth: 26, shortcut: pad}"),
        (body(width=12, depth=20, shortcut="projection"), MODEL, r"those of {use: resnet, width: 12, depth: 20, shortcut: projection}"),
        (prefixed(body()), MODEL, r"Every name begins with 'module.': prefix: module."),
        (body(num_classes=7), MODEL, r"head.bias expected \(3,\), found \(7,\).*\n.*Only the head differs, it answers other classes: adapt:"),
        (Backbone(num_classes=3), MODEL, r"No size of resnet comes near these shapes; is it the right architecture\?"),
    ],
)  # fmt: skip
def test_a_misfit_says_which_tensors_differ_and_what_would_fit(
    tmp_path: Path, source: torch.nn.Module, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"(?s)does not fit {{use: resnet, width: 8, depth: 14.*{message}"):
        brought(tmp_path, source, model=model)


def test_names_of_another_hand_lead_to_order_and_order_to_the_same_answers(tmp_path: Path) -> None:
    source = body()
    theirs = {
        f"layer{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(source.state_dict().items())
    }
    torch.save(theirs, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"The names differ, the shapes agree one by one: match: order"):
        from_weights(section(), meta_of(), tmp_path / "w.pt")
    teacher = from_weights(section(match="order"), meta_of(), tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(teacher.network.body.parameters(), source.parameters(), strict=True))
    save_file(theirs, tmp_path / "w.safetensors")
    with pytest.raises(
        CheckpointError, match=r"keeps its tensors sorted, not in the order of definition; use match: names"
    ):
        from_weights(section(match="order"), meta_of(), tmp_path / "w.safetensors")


def test_a_teacher_of_other_classes_gets_a_new_head_when_it_adapts(tmp_path: Path) -> None:
    source = body(num_classes=7)
    teacher = brought(tmp_path, source, adapt=ADAPTED)
    assert teacher.has_new_head
    own, theirs = teacher.network.body.state_dict(), source.state_dict()
    assert own["head.weight"].shape == (3, 32)
    assert all(torch.equal(own[name], theirs[name]) for name in own if not name.startswith("head."))


def test_a_backbone_without_any_head_is_enough_to_adapt(tmp_path: Path) -> None:
    torch.save({n: t for n, t in body().state_dict().items() if not n.startswith("head.")}, tmp_path / "w.pt")
    assert from_weights(section(adapt=ADAPTED), meta_of(), tmp_path / "w.pt").has_new_head
    with pytest.raises(CheckpointError, match=r"the file lacks: head.weight, head.bias"):
        from_weights(section(), meta_of(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"use": f"{FOREIGN}:Tuple"}, r"answers one sample with tuple, expected logits of shape \(1, 3\)"),
        ({"use": f"{FOREIGN}:backbone", "in_chans": 1}, r"cannot take a sample of \(3, 8, 8\) .*timm: in_chans"),
        ({"use": "resnet", "width": 8, "depth": 9}, r"depth is 9; expected 6n \+ 2"),
        ({"use": "resnet", "width": 8, "depth": 8, "shortcut": "none"}, r"shortcut is 'none'; Input should be 'projection' or 'pad'"),
    ],
)  # fmt: skip
def test_an_architecture_that_cannot_answer_is_named(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        brought(tmp_path, Backbone(num_classes=3), model=model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = Spec(
        model=Component.model_validate({"use": "convnet", "width": 8, "depth": 2}), shape=(8, 8, 3), dtype="uint8",
        classes=("a", "b", "c"), mean=(9.0,) * 3, std=(3.0,) * 3,
        cuts={"layers.3": Cut(inputs=8, outputs=6), "layers.4": Cut(inputs=6, outputs=6), "head": Cut(inputs=24, outputs=3)},
    )  # fmt: skip
    torch.manual_seed(2)
    models.save(tmp_path / "theirs", spec, models.build(spec))
    return tmp_path / "theirs"


def taken(folder: Path, meta: Meta, **changes: Any) -> Brought:
    arguments: dict[str, Any] = {"sha256": None, "trust": (), "adapts": False, **changes}
    return from_checkpoint(folder, meta, **arguments)


def test_a_checkpoint_comes_with_its_cuts_and_its_normalization(folder: Path) -> None:
    teacher = taken(folder, meta_of())
    theirs, network = models.load(folder)
    assert (teacher.spec.mean, teacher.spec.cuts) == (theirs.mean, theirs.cuts)
    raw = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(teacher.network(raw), network(raw))


@pytest.mark.parametrize("classes", [("d", "e", "f"), ("x", "y", "z", "w", "v")])
def test_a_checkpoint_of_other_classes_gets_a_new_head_even_where_their_number_is_the_same(
    folder: Path, classes: tuple[str, ...]
) -> None:
    teacher = taken(folder, meta_of(classes=classes), adapts=True)
    assert teacher.has_new_head
    assert teacher.spec.classes == classes
    own, theirs = teacher.network.state_dict(), models.load(folder)[1].state_dict()
    assert own["body.head.weight"].shape == (len(classes), 24)
    assert not torch.equal(own["body.head.weight"][:3], theirs["body.head.weight"])
    assert all(torch.equal(own[name], theirs[name]) for name in own if "head" not in name)


def test_a_checkpoint_of_another_kind_of_data_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"answers 3 classes \(a, b, c\), the data have 2 \(a, b\). A new head"):
        taken(folder, meta_of(classes=("a", "b")))
    with pytest.raises(CheckpointError, match=r"the data have 3 \(b, a, c\) in another order"):
        taken(folder, meta_of(classes=("b", "a", "c")))
    with pytest.raises(
        CheckpointError, match=r"takes uint8 samples of shape \(8, 8, 3\), the data are uint8 of \(8, 8, 1\)"
    ):
        taken(folder, meta_of((8, 8, 1)))
    with pytest.raises(CheckpointError, match=r"model.json has sha256 [0-9a-f]{64}, expected 0{64}"):
        taken(folder, meta_of(), sha256="0" * 64)


def test_images_of_another_size_are_taken_where_the_architecture_takes_them(folder: Path) -> None:
    assert taken(folder, meta_of((12, 10, 3))).spec.shape == (12, 10, 3)


def alter(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**raw, **changes}))


def test_no_import_path_is_followed_that_params_do_not_name(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alter(folder, model={"use": "os:system", "command": "echo sprung"})
    with pytest.raises(CheckpointError, match=r"names the model 'os:system', which would be imported and called"):
        taken(folder, meta_of())
    member = json.loads((folder / "model.json").read_text())
    alter(folder, model={"use": "ensemble", "members": [member, member], "weights": [1, 1]})
    with pytest.raises(CheckpointError, match=r"names the model 'os:system'"):
        taken(folder, meta_of())
    assert "sprung" not in capfd.readouterr().out


def test_a_named_import_path_is_trusted(tmp_path: Path, folder: Path) -> None:
    spec = models.load(folder)[0].model_copy(update={"model": Component(use=f"{FOREIGN}:backbone"), "cuts": {}})
    models.save(tmp_path / "foreign", spec, models.build(spec))
    with pytest.raises(CheckpointError, match=r"list it: teacher.trust: \['tests.models.foreign:backbone'\]"):
        taken(tmp_path / "foreign", meta_of())
    assert taken(tmp_path / "foreign", meta_of(), trust=(f"{FOREIGN}:backbone",)).head == "body.fc"


def test_quantized_and_damaged_checkpoints_and_adapted_ensembles_are_refused(tmp_path: Path, folder: Path) -> None:
    spec, network = models.load(folder)
    int8 = spec.model_copy(update={"quantization": quantization.describe("static", "u8s7", Component(use="mse"))})
    checkpoint.save(tmp_path / "int8", int8, network.state_dict())
    with pytest.raises(CheckpointError, match=r"is quantized; a teacher is a float network"):
        taken(tmp_path / "int8", meta_of())
    both = spec_of([spec, spec], [1.0, 1.0])
    models.save(tmp_path / "both", both, models.build(both))
    assert taken(tmp_path / "both", meta_of()).spec.model.use == "ensemble"
    with pytest.raises(CheckpointError, match=r"is an ensemble, which is taken as it is"):
        taken(tmp_path / "both", meta_of(), adapts=True)
    shutil.copytree(folder, tmp_path / "short")
    (tmp_path / "short" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is corrupt or truncated"):
        taken(tmp_path / "short", meta_of())
