"""Golden vectors and the manifest."""

import json
from pathlib import Path

import numpy as np
import pytest

from limbeck.edge import EdgeError, golden, manifest

INPUTS = np.arange(2 * 4, dtype=np.uint8).reshape(2, 4)
ANSWERS = {"model.fp32": np.array([[0.1, 2.0], [3.0, -1.0]], np.float32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "model.fp32.onnx").write_bytes(b"a model")
    golden.write(tmp_path / "golden.npz", INPUTS, ANSWERS)
    manifest.write(tmp_path, name="tiny", target="phone")
    return tmp_path


def test_golden_vectors_come_back_and_have_equal_bytes(tmp_path: Path, bundle: Path) -> None:
    inputs, answers = golden.read(bundle / "golden.npz", "model.fp32")
    assert np.array_equal(inputs, INPUTS)
    assert np.array_equal(answers, ANSWERS["model.fp32"])
    golden.write(tmp_path / "again.npz", INPUTS, ANSWERS)
    assert (tmp_path / "again.npz").read_bytes() == (bundle / "golden.npz").read_bytes()


def test_golden_answers_pass_and_others_do_not(bundle: Path) -> None:
    path, own = bundle / "golden.npz", ANSWERS["model.fp32"]
    assert golden.check(path, "model.fp32", own, max_difference=0.0).equal_predictions == 1
    with pytest.raises(EdgeError, match=r"does not give the golden answers here: logits differ by 0.5"):
        golden.check(path, "model.fp32", own * 1.5, max_difference=0.01)
    with pytest.raises(EdgeError, match="nan"):
        golden.check(path, "model.fp32", own * np.float32("nan"), max_difference=0.01)
    with pytest.raises(EdgeError, match=r"have shape \(1, 2\), the golden ones \(2, 2\)"):
        golden.check(path, "model.fp32", own[:1], max_difference=0.01)
    with pytest.raises(EdgeError, match="no golden vectors for 'other'"):
        golden.read(path, "other")


def test_a_manifest_describes_its_files(bundle: Path) -> None:
    found = manifest.read(bundle)
    assert found["name"] == "tiny"
    assert set(found["files"]) == {"golden.npz", "model.fp32.onnx"}
    before = manifest.identity(bundle)
    manifest.write(bundle, name="tiny", target="phone")
    assert manifest.identity(bundle) == before


def test_a_file_that_changed_is_refused(bundle: Path) -> None:
    (bundle / "model.fp32.onnx").write_bytes(b"another")
    with pytest.raises(EdgeError, match=r"is not the file that was exported: expected 7 bytes with sha256 .* found"):
        manifest.read(bundle)


@pytest.mark.parametrize("name", ["../escape.onnx", "/absolute.onnx", "..", "sub/file.onnx"])
def test_a_manifest_that_leaves_its_folder_is_refused(bundle: Path, name: str) -> None:
    raw = json.loads((bundle / "manifest.json").read_text())
    raw["files"][name] = {"bytes": 1, "sha256": "0"}
    (bundle / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(EdgeError, match="is outside its folder; the bundle cannot be trusted"):
        manifest.read(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no manifest"), ('{"format": 9, "files": {}}', "has format 9"), (None, "is missing")],
)
def test_what_is_no_manifest_is_said(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(EdgeError, match=message):
        manifest.read(tmp_path)


@pytest.mark.parametrize("content", ['{"format": 1, "files": {"a.onnx": {}}}', '{"format": 1, "files": [1]}', "[]"])
def test_a_manifest_without_sizes_and_digests_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(EdgeError, match="is no manifest"):
        manifest.read(tmp_path)


def test_a_folder_without_a_manifest_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"manifest.json is missing; expected the folder of an export"):
        manifest.identity(tmp_path)


def test_damaged_golden_vectors_are_refused(bundle: Path) -> None:
    path = bundle / "golden.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(INPUTS.tobytes())] ^= 1
    for damaged in (b"", b"junk", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(EdgeError, match="has no golden vectors for 'model.fp32'"):
            golden.read(path, "model.fp32")
