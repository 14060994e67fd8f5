"""Run one stage of dvc.yaml: `python -m stages prune --target phone ...`.

A stage is a function `run(*, data: Path, out: Out, prune: PruneParams, ..., report: Report) -> dict`.
Its signature is the whole wiring: a `Path` is a required flag, an `Out` a flag that it writes, `report`
and `target` come from here, and every other argument is a section of params.yaml. What `run` returns
becomes the file `--metrics`. Around the call this file reads, checks, seeds, records, watches the parent
and moves finished outs into place.
"""

import os

# Before anything loads OpenMP: threads that spin while waiting halve the speed of busy neighbours.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import errno
import hashlib
import importlib
import inspect
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from limbeck import params as params_file
from limbeck.atomic import fsync_tree, is_full, write_json
from limbeck.components import Component, Table, check, unwatched
from limbeck.edge import EdgeError
from limbeck.errors import LimbeckError, ParamsError, from_os_error
from limbeck.params import At, EnsembleTeacher, Out, Params, TargetParams, TrainTeacher, Unused, WeightsTeacher
from limbeck.recording import Report
from limbeck.watch import end_with_parent

STAGES = ("prepare", "teacher", "label", "distill", "prune", "quantize", "export", "benchmark", "register")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Signature:
    """What a stage's `run` asks for, read off its annotations."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sections: dict[str, str]  # argument -> path in params.yaml
    takes_target: bool

    @classmethod
    def of(cls, run: Callable[..., Any]) -> "Signature":
        """Sort the arguments of `run` by their annotations."""
        inputs, outputs, sections = [], [], {}
        arguments = inspect.signature(run).parameters
        for name, argument in arguments.items():
            note = argument.annotation
            if name in ("report", "target"):
                continue
            if note is Path:
                inputs.append(name)
            elif note == Out:
                outputs.append(name)
            else:
                places = [extra.path for extra in get_args(note) if isinstance(extra, At)]
                sections[name] = places[0] if get_origin(note) is Annotated and places else name
        of_target = "target" in arguments or any(
            path.split(".")[0] in TargetParams.model_fields for path in sections.values()
        )
        return cls(tuple(inputs), tuple(outputs), sections, of_target)


def components_of(params: Params) -> Iterator[tuple[Component, Table, str]]:
    """Every component of the file, of all stages, with its table and kind."""
    from limbeck.data.augment import AUGMENTS
    from limbeck.data.sources import SOURCES
    from limbeck.devices import DEVICES, WITNESSES
    from limbeck.evaluation import METRICS
    from limbeck.models import MODELS
    from limbeck.objectives import LOSSES
    from limbeck.optimizers import OPTIMIZERS
    from limbeck.pruning import IMPORTANCES, JUDGES
    from limbeck.quantization import SCHEMES
    from limbeck.quantization.observers import OBSERVERS

    yield Component(use=params.metric), METRICS, "metric"
    yield params.data.source, SOURCES, "data source"
    yield params.label.augment, AUGMENTS, "augmentation"
    several = params.teacher.members if isinstance(params.teacher, EnsembleTeacher) else (params.teacher,)
    for teacher in several:
        if isinstance(teacher, TrainTeacher | WeightsTeacher):
            yield teacher.model, MODELS, "model"
        trained = teacher if isinstance(teacher, TrainTeacher) else teacher.adapt
        if not isinstance(trained, Unused):
            yield trained.augment, AUGMENTS, "augmentation"
            yield trained.train.optimizer, OPTIMIZERS, "optimizer"
    for target in params.targets.values():
        yield target.device, DEVICES, "device"
        if not isinstance(target.benchmark.witness, Unused):
            yield target.benchmark.witness, WITNESSES, "witness"
        if not target.student.is_teacher and target.student.warm is None:
            yield target.student.model, MODELS, "model"
        yield target.student.train.optimizer, OPTIMIZERS, "optimizer"
        if not isinstance(target.distill, Unused):
            yield target.distill, LOSSES, "loss"
        if not isinstance(target.prune, Unused):
            is_of_blocks = target.prune.scope == "block"
            yield target.prune, *((JUDGES, "judge of blocks") if is_of_blocks else (IMPORTANCES, "importance"))
        if not isinstance(target.quantize, Unused):
            yield Component(use=target.quantize.use), SCHEMES, "quantization"
            yield from ((observer, OBSERVERS, "observer") for observer in target.quantize.observers)


def check_components(params: Params, warn: Callable[[str], None]) -> None:
    """Hold every component of the file against the tables and signatures; warn of code that DVC does not watch.

    Raises:
        ComponentError: naming the component, the keyword and what is expected.
        ParamsError: a loss learns from features that `label` does not keep.

    """
    from limbeck.models import builder
    from limbeck.objectives import features_for, loss_of

    for component, table, kind in components_of(params):
        if kind == "model":
            builder(component)
        elif kind == "loss":
            loss_of(component)
        else:
            check(component, table, kind)
        if why := unwatched(component, kind):
            warn(why)
    for name, target in params.targets.items():
        needing = None if isinstance(target.distill, Unused) else features_for(target.distill)
        if needing and not params.label.features:
            raise ParamsError(
                f"targets.{name}.distill: {needing} learns from the teacher's features, which label does not "
                "keep; set label.features: true."
            )


def own_code() -> list[Path]:
    """Every file of ours that can change what a stage does."""
    return [path for room in ("limbeck", "stages", "custom") for path in sorted(ROOT.glob(f"{room}/**/*.py"))]


def check_once(params: Params, warn: Callable[[str], None]) -> None:
    """Check the components unless the same values were already checked against the same code.

    Looking a component up imports its library (torch: over a second); nine stages ask the same question.
    """
    digest = hashlib.sha256()
    for source in [Path("params.yaml"), *own_code()]:
        digest.update(source.read_bytes())
    mark = Path(".limbeck/checked") / digest.hexdigest()  # a file of its own: stages may check side by side
    if mark.exists():
        return
    check_components(params, warn)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def parse(arguments: list[str]) -> tuple[str, Callable[..., Any], Signature, argparse.Namespace]:
    """Find the stage and read its flags."""
    chooser = argparse.ArgumentParser(prog="python -m stages", description=__doc__.split("\n")[0], add_help=False)
    chooser.add_argument("stage", choices=STAGES)
    if not arguments or arguments[0] in ("-h", "--help"):
        chooser.print_help()
        raise SystemExit(0)
    name = chooser.parse_args(arguments[:1]).stage
    run = importlib.import_module(f"stages.{name}").run
    signature = Signature.of(run)
    parser = argparse.ArgumentParser(prog=f"python -m stages {name}", description=inspect.getdoc(run))
    if signature.takes_target:
        parser.add_argument("--target", required=True, help="a target of params.yaml")
    for flag in signature.inputs:
        parser.add_argument(f"--{flag}", type=Path, required=True, help="read")
    for flag in signature.outputs:
        parser.add_argument(f"--{flag}", type=Path, required=True, help="written whole, or not at all")
    parser.add_argument("--metrics", type=Path, help="where the returned figures go (JSON)")
    parser.add_argument("--curves", type=Path, help="where the rows by epoch go (CSV)")
    return name, run, signature, parser.parse_args(arguments[1:])


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and (where it is loaded) torch."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)


def scratch_key(stage: str, flags: argparse.Namespace, signature: Signature, sections: dict[str, Any]) -> str:
    """Digest of all that a half-finished stage must share with the one that resumes it."""
    digest = hashlib.sha256(repr((stage, sorted(sections.items()))).encode())
    for flag in signature.inputs:
        path: Path = getattr(flags, flag)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        for file in files:
            digest.update(file.read_bytes())
    for source in own_code():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def run_into(partials: dict[str, Path], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call `work`, which writes the partials; whatever goes wrong, none of them is left.

    Raises:
        OSError: ENOSPC where the disk is full, however the writing library put it.
    """
    clear(partials)
    try:
        figures = work()
        for partial in partials.values():
            fsync_tree(partial)
    except Exception as error:
        full = next((partial for partial in partials.values() if is_full(partial.parent)), None)
        clear(partials)
        if full is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(full.with_suffix(""))) from error
        raise
    return figures


def clear(partials: dict[str, Path]) -> None:
    """Remove what an earlier try left, and make the folders."""
    for partial in partials.values():
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        partial.parent.mkdir(parents=True, exist_ok=True)


def main(arguments: list[str]) -> int:
    """Run a stage; the answer is the exit code."""
    end_with_parent()
    name, run, signature, flags = parse(arguments)
    target = getattr(flags, "target", None)
    stage = f"{name}@{target}" if target else name
    report = Report(stage)
    try:
        params = params_file.load()
        if target is not None and target not in params.targets:
            raise ParamsError(f"params.yaml has no target {target!r}; it has {', '.join(params.targets)}.")
        check_once(params, report.warn)
        inputs = {flag: getattr(flags, flag) for flag in signature.inputs}
        for path in inputs.values():
            if not path.exists():
                raise LimbeckError(
                    f"{stage} reads {path}, which is missing; run `dvc repro {stage}`, or `dvc pull` where a remote has it."
                )
        sections = {argument: params.section(path, target) for argument, path in signature.sections.items()}
        if "target" in inspect.signature(run).parameters:
            sections["target"] = target
        seed_everything(params.seed)
        report.begin(sections, scratch_key(stage, flags, signature, sections))
        finals: dict[str, Path] = {flag: getattr(flags, flag) for flag in signature.outputs}
        partials = {flag: path.with_name(path.name + ".partial") for flag, path in finals.items()}
        figures = run_into(partials, lambda: run(**inputs, **partials, **sections, report=report))
        for flag, final in finals.items():
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(partials[flag], final)
        if flags.metrics:
            write_json(flags.metrics, figures)
            report.artifact(flags.metrics)
        if flags.curves:
            report.write_curves(flags.curves)
            report.artifact(flags.curves)
        report.done(figures)
    except (LimbeckError, EdgeError) as error:
        return report.failed(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return report.failed(error, "interrupted; the same command goes on from here.", 130)
    except Exception as error:
        known = from_os_error(error) if isinstance(error, OSError) else None
        if known is None:
            traceback.print_exc()
            return report.failed(error, str(error), 1)
        return report.failed(known, str(known), known.exit_code)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # everything is on disk; tearing torch down would take another third of a second
