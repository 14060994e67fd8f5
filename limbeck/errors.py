"""What can go wrong, and what a process answers.

    LimbeckError                exit code 2: the user can mend it
    +-- ParamsError             params.yaml: unknown key, wrong value, sections that disagree
    |   +-- ComponentError      a `use:` that does not exist or rejects its keywords
    +-- DataError               a source, split or prepared array that is not what it should be
    +-- CheckpointError         a file that is not the model it claims to be
    +-- TrainingDiverged        the loss is no longer a finite number
    +-- ExportError             the exported file does not answer like the model
    +-- DeviceError             the device cannot measure, or is not the one the target names
    +-- TrackingError           the tracking server is away or its address is malformed
    +-- PublishingError         keys, signatures or published metadata are not what they must be
    +-- WebhookError            what came to the registry's webhook is not what the registry sends
    +-- StorageError            the disk is full or read-only
    +-- ContractBroken          exit code 3: no variant keeps every clause

Every message says what went wrong, what was expected, what was found and the next step.
Broken invariants of our own are `assert`s, not members of this tree.
"""

import errno


class LimbeckError(Exception):
    """A condition the user can mend. Its text is the whole message; no traceback is shown."""

    exit_code = 2


class ParamsError(LimbeckError):
    """params.yaml holds something the pipeline cannot use."""


class ComponentError(ParamsError):
    """A component cannot be found or does not accept its keywords."""


class DataError(LimbeckError):
    """The data is not what it should be."""


class CheckpointError(LimbeckError):
    """A stored model cannot be loaded as what it claims to be."""


class TrainingDiverged(LimbeckError):
    """Training produced a loss that is not finite."""


class ExportError(LimbeckError):
    """An exported file does not answer like the model it came from."""


class DeviceError(LimbeckError):
    """Measuring on the target's device failed or would be meaningless."""


class TrackingError(LimbeckError):
    """The tracking server cannot be used."""


class PublishingError(LimbeckError):
    """Signing or publishing cannot go on: a key, a signature, a version or the published metadata."""


class WebhookError(LimbeckError):
    """What came to the webhook is unsigned, stale or malformed, or there is no secret to tell by."""


class StorageError(LimbeckError):
    """The disk refused a write."""


class ContractBroken(LimbeckError):
    """No variant of a target keeps its contract; nothing was registered."""

    exit_code = 3


def from_os_error(error: OSError) -> LimbeckError | None:
    """Translate a disk that refuses writes into a `StorageError`; None for any other cause."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EROFS: "the file system is read-only; work in a folder that can be written",
        errno.EACCES: "permission is missing; make it readable and its folder writable",
    }
    if error.errno not in advice:
        return None
    refused = "open" if error.errno == errno.EACCES else "write"
    return StorageError(
        f"cannot {refused} {error.filename or 'a file'}: {advice[error.errno]}, then repeat the command."
    )
