"""ONNX files that answer like the models, golden vectors, manifest."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck import checkpoint, models, quantization
from limbeck import export as onnx_export
from limbeck.data.splits import read, read_meta, read_texts, tokenizer_file
from limbeck.edge import golden, manifest
from limbeck.edge.tokenizer import NAME as TOKENIZER
from limbeck.edge.tokenizer import read as read_tokenizer
from limbeck.params import ExportParams, Out
from limbeck.recording import Report

PROOF_SAMPLES = 1024
"""At most so many, evenly out of the validation split, are answered by every file and its model: one in float is off by
rounding everywhere or wrong everywhere, and a large teacher takes its time."""


def run(
    *,
    data: Path,
    teacher: Path,
    student: Path,
    pruned: Path,
    quantized: Path,
    out: Out,
    export: ExportParams,
    name: str,
    target: str,
    report: Report,
) -> dict[str, Any]:
    """Export teacher, student, pruned and int8 model; prove each against torch on samples of the validation split."""
    meta = read_meta(data)
    whole, _ = read(data, "validation")
    apart = -(-len(whole) // PROOF_SAMPLES)
    x = np.array(whole[::apart])
    sample = torch.from_numpy(x[:1].copy())
    sources = {"teacher": teacher, "student": student, "model.fp32": pruned, "model.int8": quantized}
    if checkpoint.read(quantized)[0].quantization is None:
        del sources["model.int8"]  # quantize: {use: none}
    teacher_digest = checkpoint.digest_of(teacher)
    notes = {"data": meta.digest, "teacher": teacher_digest, "name": name}
    out.mkdir()
    parity: dict[str, Any] = {}
    num_params, macs = {}, {}
    for index, (variant, folder) in enumerate(sources.items(), start=1):
        report.progress(index, len(sources), variant)
        spec, network = quantization.load(folder)
        path = out / f"{variant}.onnx"
        onnx_export.to_onnx(path, network, spec, export.opset, notes)
        is_float = spec.quantization is None
        proof = onnx_export.check_parity(
            path, network, x, max_difference=export.max_difference if is_float else None, min_equal=export.min_equal
        )
        parity[variant] = {"max_difference": proof.max_difference, "equal_predictions": proof.equal_predictions}
        if is_float:
            assert isinstance(network, models.Network)
            num_params[variant], macs[variant] = models.num_params(network), models.count_macs(network, sample)
        else:
            num_params[variant], macs[variant] = num_params["model.fp32"], macs["model.fp32"]
        report.log(
            f"{variant}: {path.stat().st_size:,} B, {proof.equal_predictions:.2%} of predictions equal to torch's"
        )
    inputs = np.ascontiguousarray(x[: export.num_golden])
    answers = {variant: onnx_export.run(out / f"{variant}.onnx", inputs) for variant in sources}
    texts = None
    if (tokenizer := tokenizer_file(data)) is not None:
        shutil.copyfile(tokenizer, out / tokenizer.name)  # text is raw input: what reads it ships beside the model
        texts = [text or "" for text in islice(read_texts(data, "validation"), 0, len(inputs) * apart, apart)]
    golden.write(out / "golden.npz", inputs, answers, texts)
    if texts is not None:
        golden.check_texts(out / "golden.npz", read_tokenizer(out / TOKENIZER))
    manifest.write(
        out,
        name=name,
        target=target,
        classes=list(meta.classes),
        input={"name": "input", "shape": ["batch", *meta.shape], "dtype": meta.dtype},
        output={"name": "logits", "shape": ["batch", len(meta.classes)], "dtype": "float32"},
        opset=export.opset,
        data_digest=meta.digest,
        teacher_digest=teacher_digest,
        num_params=num_params,
        macs=macs,
        tolerance={"max_difference": export.max_difference, "min_equal": export.min_equal},
    )
    sizes = {variant: (out / f"{variant}.onnx").stat().st_size for variant in sources}
    return {"bytes": sizes, "parity": parity, "parameters": num_params, "macs": macs}
