"""What runs on a device, and nothing else of limbeck: numpy and onnxruntime serve, the update client has its own process."""


class EdgeError(Exception):
    """A condition the user can mend: a missing, damaged or unsuitable file. Exit code 2, no traceback."""

    exit_code = 2
