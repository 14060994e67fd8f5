"""How ONNX files are opened on a device, to be measured and to serve alike."""

from pathlib import Path
from typing import Any

from limbeck.edge.processors import PROOF, this_one


def open_session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; waiting threads sleep, so that they do not disturb the next file's turn."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not has_exact_sums():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def has_exact_sums() -> bool:
    """Whether the processor adds products of bytes in 32 bits.

    x86 without VNNI lets such sums overflow, unless ONNX Runtime is asked for exact ones. With VNNI it would obey, too, and
    leave VNNI unused.
    """
    return not PROOF["vnni"].isdisjoint(this_one()[1])
