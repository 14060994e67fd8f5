"""How ONNX files are opened on a device, to be measured and to serve alike."""

from pathlib import Path
from typing import Any


def open_session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; waiting threads sleep, so that they do not disturb the next file's turn."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # x86 without VNNI would let sums of int8 products overflow; weights of 7 bits are as quick with it as without
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
