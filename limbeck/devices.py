"""Where latency is measured: on this machine, or on a device whose answer is a file. Who else has to answer alike."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.components import bind
from limbeck.edge import manifest
from limbeck.edge import measure as edge
from limbeck.edge.processors import PROOF
from limbeck.errors import DeviceError
from limbeck.params import Instructions, MeasureParams, WitnessParams

RUN_THERE = "Run `limbeck-edge bench FILES --json` on the device and name its answer: {use: result, file: ...}."

WITNESSED = 256
"""Samples per inference of a witness."""

SAME = {"arm64": "aarch64", "amd64": "x86_64"}
"""Names that systems have for one architecture."""


def _refuse_another(found: dict[str, Any], expected: str | None) -> None:
    """Raise a DeviceError unless `expected` is the architecture found or a part of the processor's name."""
    if expected is None:
        return
    wanted, arch, cpu = expected.lower(), str(found.get("arch", "?")), str(found.get("cpu", "?"))
    if SAME.get(wanted, wanted) != SAME.get(arch.lower(), arch.lower()) and wanted not in cpu.lower():
        raise DeviceError(f"the target's device is {expected!r}, this is {cpu} ({arch}). {RUN_THERE}")


def _complete(file: str, answer: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What later stages read of an answer, for these variants alone.

    Raises:
        DeviceError: a figure is missing or not finite.
    """
    pairs = [f"{over}/{under}" for over, under in edge.pairs(names)]
    try:
        variants = {name: answer["variants"][name] for name in names}
        ratios = {pair: answer["ratios"][pair] for pair in pairs}
        intervals = [*ratios.values(), *(row[key] for row in variants.values() for key in edge.QUANTILES)]
        figures = [interval[key] for interval in intervals for key in ("value", "low", "high")]
        figures += [row[key] for row in variants.values() for key in ("cold_start_ms", "peak_memory_mb", "bytes")]
        if not all(math.isfinite(figure) for figure in [answer["idle_peak_mb"], *figures]):
            raise ValueError("a figure is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"{file} lacks what the contract is held against: {error}; all files have to be measured in one call. "
            f"{RUN_THERE}"
        ) from None
    return {**answer, "variants": variants, "ratios": ratios}


def local(
    files: dict[str, Path],
    threads: int,
    batch_size: int,
    measure: MeasureParams,
    progress: Callable[[int, int, str], None],
    *,
    machine: str | None = None,
) -> dict[str, Any]:
    """Measure here. `machine` (an architecture or a part of the processor's name) refuses any other machine.

    Raises:
        DeviceError: another machine.
        EdgeError: a file that does not run here.
    """
    _refuse_another(edge.machine(), machine)
    return edge.measure(files, threads=threads, batch_size=batch_size, progress=progress, **measure.model_dump())


def result(
    files: dict[str, Path],
    threads: int,
    batch_size: int,
    measure: MeasureParams,
    progress: Callable[[int, int, str], None],
    *,
    file: str,
    machine: str | None = None,
) -> dict[str, Any]:
    """Take what `limbeck-edge bench --json` answered on the device, if it measured these very files that way.

    Raises:
        DeviceError: no such answer, another machine, other files, threads or batch size.
    """
    try:
        answer: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
        found, variants = dict(answer["machine"]), answer["variants"]
        digests = {name: row["sha256"] for name, row in variants.items()}
        how = (answer["threads"], answer["batch_size"])
    except FileNotFoundError:
        raise DeviceError(f"{file} is missing. {RUN_THERE}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(f"{file} is no answer of `limbeck-edge bench --json`: {error!r}. {RUN_THERE}") from None
    _refuse_another(found, machine)
    if how != (threads, batch_size):
        raise DeviceError(
            f"{file} was measured with {how[0]} threads at batch {how[1]}, the target asks for {threads} at {batch_size}."
        )
    others = [name for name, path in files.items() if digests.get(name) != manifest.sha256(path)]
    if others:
        raise DeviceError(f"{file} did not measure these files: {', '.join(others)} differ. {RUN_THERE}")
    return _complete(file, answer, list(files))


DEVICES: dict[str, Callable[..., dict[str, Any]]] = {"local": local, "result": result}


def lacks(machine: dict[str, Any], instructions: Instructions) -> bool:
    """Whether a machine, as `limbeck.edge` describes it, reports instruction sets but none that these need."""
    reported = set(machine.get("instructions", ()))
    return bool(PROOF[instructions] and reported and not PROOF[instructions] & reported)


def refuse_lacking(machine: dict[str, Any], instructions: Instructions) -> None:
    """Raise a DeviceError when the device cannot compute what int8 files of this target are made for."""
    if lacks(machine, instructions):
        raise DeviceError(
            f"the target's instructions are {instructions!r}, its device {machine.get('cpu', '?')} has "
            f"{', '.join(machine['instructions'])}: sums of int8 products would differ there. Set instructions: any."
        )


def emulated(file: Path, inputs: Path, threads: int, *, program: str, cpu: str) -> NDArray[np.float32]:
    """Logits [N, K] on a processor that QEMU plays in user mode: `program` is qemu-x86_64, `cpu` one of `program -cpu help`.

    It takes some hundred times as long as here, and its times mean nothing: answers alone.

    Raises:
        DeviceError: the emulator is not installed.
        EdgeError: it does not know the processor, or the runtime does not start on it.
    """
    if shutil.which(program) is None:
        raise DeviceError(
            f"{program} is not installed. Debian has it in qemu-user (apt install qemu-user); without it, "
            "benchmark.witness: {use: none} asks nobody else."
        )
    return edge.predict(file, inputs, threads=threads, batch_size=WITNESSED, launcher=(program, "-cpu", cpu))


def agreement(
    witness: WitnessParams, files: dict[str, Path], x: NDArray[np.generic], threads: int, scratch: Path
) -> dict[str, Any]:
    """Let the witness answer the first samples of x [N, ...] and hold that against the answers here, file by file.

    Raises:
        DeviceError: too few of a file's predictions are equal.
    """
    answer = bind(witness, WITNESSES, "witness")
    inputs = scratch / "witnessed.npy"
    np.save(inputs, np.array(x[: witness.num_samples]), allow_pickle=False)
    found = {}
    for name, file in files.items():
        here = edge.predict(file, inputs, threads=threads, batch_size=WITNESSED)
        there = answer(file, inputs, threads)
        equal = float((here.argmax(1) == there.argmax(1)).mean())
        difference = float(np.abs(here - there).max() / max(1e-9, np.abs(here).max()))
        found[name] = {"equal_predictions": equal, "max_difference": difference}
        if equal < witness.min_equal:
            raise DeviceError(
                f"{name} answers otherwise elsewhere: {equal:.2%} of its predictions on {len(here):,} samples are equal "
                f"(witness {witness.keywords or witness.use}, needed {witness.min_equal:.2%}). A file for every processor "
                "is made by instructions: any with quantize.arithmetic: auto."
            )
    return {"use": witness.use, **witness.keywords, "samples": min(len(x), witness.num_samples), "variants": found}


WITNESSES: dict[str, Callable[..., NDArray[np.float32]]] = {"emulated": emulated}
