"""Golden vectors: inputs with the answers every device has to give, in bytes that depend on them alone."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError
from limbeck.edge.tokenizer import Tokenizer, encode_all

INPUT, TEXT = "input", "text"
UNIX = 3


@dataclass(frozen=True)
class Proof:
    """How near the answers are: the largest difference over the largest golden logit, the share of equal classes."""

    max_difference: float
    equal_predictions: float


def write(
    path: Path, inputs: NDArray[Any], answers: dict[str, NDArray[np.float32]], texts: Sequence[str] | None = None
) -> None:
    """Store inputs [G, ...] and the logits [G, K] of each variant (`.npz` with fixed time stamps).

    Of texts the G `texts` themselves, too: a device proves with them that its tokenizer gives these inputs.
    """
    assert not {INPUT, TEXT} & answers.keys(), "a variant may not have the name of the inputs"
    told = {} if texts is None else {TEXT: np.array(list(texts), np.str_)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in {INPUT: inputs, **told, **answers}.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = UNIX  # else the bytes tell the system they were made on
            archive.writestr(member, stream.getvalue())


def read(path: Path, variant: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Inputs [G, ...] and the golden logits [G, K] of a variant.

    Raises:
        EdgeError: the file is missing, no golden file, or has no such variant.
    """
    return _arrays(path, INPUT, variant)


def _arrays(path: Path, *names: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = []
            for name in names:
                with archive.open(f"{name}.npy") as stream:
                    found.append(np.lib.format.read_array(stream, allow_pickle=False))
    except FileNotFoundError:
        raise EdgeError(f"{path} is missing; restore its folder (`dvc checkout`) or fetch it again.") from None
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        raise EdgeError(
            f"{path} has no golden vectors for {names[-1]!r}: {cause}. Restore its folder or fetch it again."
        ) from None
    return found[0], found[1]


def check_texts(path: Path, tokenizer: Tokenizer) -> int:
    """Hold what the tokenizer makes of the golden texts against the golden inputs; how many there are.

    Raises:
        EdgeError: the file is damaged or holds no texts, or a text gets other codes.
    """
    inputs, texts = _arrays(path, INPUT, TEXT)
    found = encode_all(tokenizer, [str(text) for text in texts])
    if not np.array_equal(found, inputs):
        raise EdgeError(
            f"{path} was made with another tokenizer: its texts get other codes here. Fetch the bundle again."
        )
    return len(texts)


def check(path: Path, variant: str, found: NDArray[np.float32], *, max_difference: float) -> Proof:
    """Hold answers [G, K] against the golden ones.

    Raises:
        EdgeError: another shape, a difference above `max_difference` of the largest logit, or another class.
    """
    _, golden = read(path, variant)
    if found.shape != golden.shape:
        raise EdgeError(f"{variant}: answers have shape {found.shape}, the golden ones {golden.shape}.")
    difference = float(np.abs(found - golden).max() / max(1e-9, float(np.abs(golden).max())))
    equal = float((found.argmax(1) == golden.argmax(1)).mean())
    if not difference <= max_difference or equal < 1:
        raise EdgeError(
            f"{variant} does not give the golden answers here: logits differ by {difference:.2g} of the largest "
            f"(allowed {max_difference:g}), {equal:.0%} of the classes are equal (needed 100%)."
        )
    return Proof(difference, equal)
