"""What runs on a device: numpy and onnxruntime, nothing else of limbeck."""


class EdgeError(Exception):
    """A condition the user can mend: a missing, damaged or unsuitable file. Exit code 2, no traceback."""

    exit_code = 2
