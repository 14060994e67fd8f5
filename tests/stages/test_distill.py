"""The distill stage, where there is nobody to teach: the student is the teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import labels, models
from limbeck.checkpoint import Spec, digest_of
from limbeck.components import Component
from limbeck.data.splits import read_meta
from limbeck.errors import CheckpointError
from limbeck.models.ensemble import member_of, spec_of
from limbeck.params import Params, StudentParams
from stages import distill
from tests.conftest import Remembering


@pytest.mark.parametrize("technique", ["kd", "none"])
def test_the_teacher_passes_through_to_be_cut_and_quantized(
    technique: str, data: Path, tiny: Params, tmp_path: Path, report: Remembering
) -> None:
    meta, target = read_meta(data), tiny.targets["sensor"]
    spec = Spec(
        model=Component.model_validate({"use": "convnet", "width": 8, "depth": 2}), shape=meta.shape, dtype=meta.dtype,
        classes=meta.classes, mean=(40.0,), std=(50.0,),
    )  # fmt: skip
    network = models.build(spec)
    models.save(tmp_path / "teacher", spec, network)
    labels.write(
        tmp_path / "labels", data, network, tiny.label, seed=0, teacher_digest="0" * 64, teacher_quality=0.1,
        progress=lambda *_: None,
    )  # fmt: skip
    told: Any = report
    figures = distill.run(
        data=data, labels=tmp_path / "labels", teacher=tmp_path / "teacher", out=tmp_path / "out",
        control=tmp_path / "control", student=StudentParams(model=Component(use="teacher"), train=target.student.train),
        distill=target.distill if technique == "kd" else Component(use="none"), bootstrap=10, bootstrap_seed=0,
        metric="accuracy", seed=0, report=told,
    )  # fmt: skip
    assert digest_of(tmp_path / "out") == digest_of(tmp_path / "teacher")
    assert figures["parameters"] == models.num_params(network)
    assert "gain" not in figures
    assert json.loads((tmp_path / "control/none.json").read_text()) == {
        "control": "the student is the teacher, or a member of it"
    }
    assert report.steps == [], "nothing was trained"


def test_a_member_of_the_teacher_passes_through_to_be_cut_and_taught_by_all(
    data: Path, tiny: Params, tmp_path: Path, report: Remembering
) -> None:
    meta, target = read_meta(data), tiny.targets["sensor"]
    members = [
        Spec(
            model=Component.model_validate({"use": "convnet", "width": width, "depth": 2}), shape=meta.shape,
            dtype=meta.dtype, classes=meta.classes, mean=(40.0,), std=(50.0,),
        )
        for width in (8, 12)
    ]  # fmt: skip
    spec = spec_of(members, [1.0, 1.0])
    network = models.build(spec)
    models.save(tmp_path / "teacher", spec, network)
    told: Any = report

    def run(member: int) -> dict[str, Any]:
        model = Component.model_validate({"use": "teacher", "member": member})
        return distill.run(
            data=data, labels=tmp_path / "labels", teacher=tmp_path / "teacher", out=tmp_path / f"{member}",
            control=tmp_path / f"control{member}", student=StudentParams(model=model, train=target.student.train),
            distill=target.distill, bootstrap=10, bootstrap_seed=0, metric="accuracy", seed=0, report=told,
        )  # fmt: skip

    figures = run(2)
    found, second = models.load(tmp_path / "2")
    assert found.model == members[1].model
    assert figures["parameters"] == models.num_params(second)
    expected = network.get_submodule("body.members.1").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())
    with pytest.raises(CheckpointError, match=r"member is 3; the teacher has 2 members. Choose one from 1 to 2"):
        run(3)
    with pytest.raises(CheckpointError, match=r"member is 1; the teacher is one network. Leave member out"):
        member_of(members[0], network, 1)
