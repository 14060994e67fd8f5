"""What is looked at of samples, networks and devices' reports."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.drift import Signals, signals_of
from limbeck.drift.signals import as_told, both, class_counts, coarse, joined, told
from limbeck.edge.usage import Usage, describe, softmax
from limbeck.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 12, 12, 3), dtype=np.uint8)


class Net(nn.Module):
    """Raw images -> logits of four classes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.hidden, self.head = nn.Linear(12 * 12 * 3, 5), nn.Linear(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(images.flatten(1).float() / 255)))


def seen(**changed: Any) -> Signals:
    how: dict[str, Any] = {
        "teacher": Net(1),
        "labels_N": np.arange(50) % 4,
        "max_samples": 100,
        "batch_size": 16,
        "seed": 0,
    }
    return signals_of(Net(0), changed.pop("samples", IMAGES), **how | changed)


def test_every_kind_is_what_the_networks_said() -> None:
    student, teacher = Net(0), Net(1)
    with torch.no_grad():
        x = torch.from_numpy(IMAGES)
        logits, others = student(x).numpy(), teacher(x).numpy()
        features = torch.relu(student.hidden(x.flatten(1).float() / 255)).numpy()
    found = seen()
    assert found.count == 50
    assert found.confidence_N == pytest.approx(softmax(logits).max(1), rel=1e-5)
    assert (found.predicted_N == logits.argmax(1)).all()
    assert (found.agreement_N == (logits.argmax(1) == others.argmax(1))).all()
    assert (found.correct_N == (logits.argmax(1) == np.arange(50) % 4)).all()
    assert found.embeddings_ND == pytest.approx(features, abs=1e-5)
    assert {name: values[7] for name, values in found.inputs.items()} == describe(IMAGES[7:8])


def test_what_is_not_there_is_not_compared() -> None:
    found = seen(teacher=None, labels_N=None)
    assert found.agreement_N is found.correct_N is None
    assert both("agreement", found, seen()) is None


def test_samples_without_a_label_have_no_accuracy() -> None:
    labels = np.where(np.arange(50) < 20, np.arange(50) % 4, -1)
    found = seen(labels_N=labels)
    assert found.labelled is not None
    assert found.labelled.tolist() == seen().correct_N[:20].tolist()  # type: ignore[index]
    assert seen(labels_N=np.full(50, -1)).labelled is None


def test_no_more_samples_are_read_than_asked_for_and_in_their_order() -> None:
    few, again, rest = seen(max_samples=10), seen(max_samples=10), seen()
    assert few.count == 10
    places = [int(np.flatnonzero(rest.confidence_N == value)[0]) for value in few.confidence_N]  # type: ignore[union-attr]
    assert places == sorted(places)
    assert few.confidence_N.tolist() == again.confidence_N.tolist()  # type: ignore[union-attr]


def test_parts_join_and_are_taken_apart() -> None:
    whole = seen()
    again = joined([whole.take(np.arange(30)), whole.take(np.arange(30, 50))])
    assert again.predicted_N.tolist() == whole.predicted_N.tolist()  # type: ignore[union-attr]
    assert again.inputs["std 2"].tolist() == whole.inputs["std 2"].tolist()
    assert whole.at_most(8, seed=0).count == 8


def test_answers_that_are_not_finite_are_named() -> None:
    network = Net(0)
    network.head.bias.data[:] = torch.nan
    with pytest.raises(DataError, match="confidence: values that are not finite; set the window aside"):
        signals_of(network, IMAGES, teacher=None, labels_N=None, max_samples=9, batch_size=4, seed=0)
    with pytest.raises(DataError, match="no samples to compare"):
        seen(samples=IMAGES[:0], labels_N=None)


def test_coarse_samples_are_means_over_blocks() -> None:
    images = np.zeros((2, 16, 20, 1), np.uint8)
    images[:, :2, :2] = 100
    assert coarse(images).shape == (2, 64)
    assert coarse(images)[0, 0] == 100
    assert coarse(images).sum() == 200
    assert coarse(np.ones((3, 1000), np.float32)).tolist() == np.ones((3, 64)).tolist()
    assert coarse(np.ones((3, 5), np.float32)).shape == (3, 5)


# What devices tell.


def reported(logits_BK: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    usage = Usage()
    for image, logits in zip(IMAGES, logits_BK, strict=True):
        usage._input_due = 0.0  # every input is looked at
        usage.note(1000, image[None], logits[None])
        usage.digest()
    return dict(json.loads(json.dumps(usage.report())))


def test_a_device_tells_what_the_reference_is_rounded_to() -> None:
    with torch.no_grad():
        logits = Net(0)(torch.from_numpy(IMAGES)).numpy()
    heard, reference = told([reported(logits)], max_samples=1000, seed=0), as_told(seen())
    assert np.sort(heard.confidence_N).tolist() == np.sort(reference.confidence_N).tolist()  # type: ignore[arg-type]
    assert np.sort(heard.predicted_N).tolist() == np.sort(reference.predicted_N).tolist()  # type: ignore[arg-type]
    assert {name: np.sort(values).tolist() for name, values in heard.inputs.items()} == {
        name: np.sort(values).tolist() for name, values in reference.inputs.items()
    }
    assert heard.embeddings_ND is heard.correct_N is None


def test_reports_add_up_to_no_more_than_asked_for() -> None:
    report = {
        "confidence": {"growth": 1.02, "count": 10**15, "buckets": {"1046": 10**15}},
        "predicted": {"0": 3 * 10**14, "3": 10**14},
        "inputs": {},
    }
    heard = told([report] * 12, max_samples=1000, seed=0)
    assert heard.count == 1000
    assert class_counts(heard.predicted_N, heard.predicted_N)[0] / 1000 == pytest.approx([0.75, 0, 0, 0.25], abs=0.05)  # type: ignore[arg-type]


def test_no_answer_is_drawn_twice() -> None:
    report = {
        "confidence": {"growth": 1.02, "count": 100, "buckets": {str(bucket): 1 for bucket in range(950, 1050)}},
        "predicted": {},
        "inputs": {},
    }
    heard = told([report], max_samples=99, seed=0)
    assert len(np.unique(heard.confidence_N)) == 99  # type: ignore[arg-type]


def test_of_many_classes_devices_tell_no_prior() -> None:
    report = {"confidence": {"growth": 1.02, "count": 1, "buckets": {"1000": 9}}, "predicted": {}, "inputs": {}}
    heard = told([report], max_samples=10, seed=0)
    assert heard.predicted_N is None
    assert heard.count == 9


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predicted": {"-1": 3}}, "predicted.-1"),
        ({"confidence": {"growth": 1.5, "count": 0}}, "a sketch of growth 1.5, expected 1.02"),
        ({"confidence": {"growth": 1.02, "count": 1, "buckets": {"999999": 1}}}, "a bucket beyond all numbers"),
        ({"inputs": {"mean": {"growth": 1.25, "count": 1, "buckets": {"1": -5}}}}, "inputs.mean.buckets.1"),
    ],
)
def test_a_report_that_is_none_is_refused(changed: dict[str, Any], message: str) -> None:
    sound = {"confidence": {"growth": 1.02, "count": 0}, "predicted": {}, "inputs": {}}
    with pytest.raises(DataError, match=f"a device's report: {message}.*leave that file out"):
        told([sound | changed], max_samples=10, seed=0)
