"""params.yaml as types and ranges. Values stand in params.yaml alone: nothing here has a default.

A stage asks for sections by argument name and type (see `stages/__main__.py`):
`prune: PruneParams` is `targets.T.prune`, `seed: int` is `seed`, and a part of another section says
where it stands: `train: Annotated[TrainParams, At("student.train")]`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from limbeck.components import NONE, Component, nearest
from limbeck.errors import ParamsError


@dataclass(frozen=True)
class At:
    """Where an argument's value stands, from its target (or the root) down: `At("student.train")`."""

    path: str


@dataclass(frozen=True)
class _Output:
    """Marks a path that a stage writes."""


Out: TypeAlias = Annotated[Path, _Output()]

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Quality: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Compile: TypeAlias = Literal["auto", "always", "never"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Beta: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running average each step keeps."""
Instructions: TypeAlias = Literal["any", "avx2", "vnni", "dotprod"]
"""What a target multiplies bytes with; `any`: answers must be the same on all of them."""
Tune: TypeAlias = Literal["all", "norms", "nothing"]
"""What of a stored network goes on learning."""
Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


Kind = TypeVar("Kind", bound=BaseModel)


class Section(BaseModel):
    """A section with fixed keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unused(Component):
    """A technique chosen away by `{use: none}`; whatever stands beside it waits unread."""


def _is_used(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return "unused" if use == NONE else "used"


class SplitParams(Section):
    """Shares of the source; what is left trains. `test` and `validation` are null where it brings splits of its own."""

    test: Share | None
    validation: Share | None
    calibration: Share

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "SplitParams":
        taken = (self.test or 0) + (self.validation or 0) + self.calibration
        if taken >= 1:
            raise ValueError(f"test + validation + calibration take {taken:g} of the data; leave a share below 1")
        return self


class DataParams(Section):
    """What `prepare` reads."""

    source: Component
    split: SplitParams
    max_overlap: Quality


class TrainParams(Section):
    """Settings of the one training loop."""

    epochs: PositiveInt
    batch_size: PositiveInt
    optimizer: Component
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_epochs: NonNegativeFloat
    clip_norm: PositiveFloat
    ema_decay: Beta
    precision: Precision
    device: Literal["auto", "cpu", "cuda"]
    compile: Compile
    threads: PositiveInt

    @model_validator(mode="after")
    def _warms_up_within_training(self) -> "TrainParams":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} and epochs is {self.epochs}; warm up for fewer epochs"
            )
        return self


class ShortTrainParams(Section):
    """What a short training changes of its student's `train`."""

    epochs: PositiveInt
    lr: PositiveFloat

    def of(self, train: TrainParams) -> TrainParams:
        """The student's settings for this many epochs from this learning rate, without warm-up."""
        return train.model_copy(update={"epochs": self.epochs, "lr": self.lr, "warmup_epochs": 0.0})


class InputParams(Section):
    """What a teacher from elsewhere expects at its first layer: its *own* normalization, by channel.

    `units` says what mean and std were computed on: `raw` values as the data have them, or `0..1` (bytes / 255).
    `size`: images are scaled to size x size first; null leaves them.
    """

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    units: Literal["raw", "0..1"]
    size: PositiveInt | None

    @model_validator(mode="after")
    def _has_equal_lengths(self) -> "InputParams":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}; give one of each by channel")
        return self


class AdaptParams(Section):
    """What is trained of a teacher that was not made here: every weight (`all`), or a `head` on frozen features."""

    use: Literal["all", "head"]
    augment: Component
    train: TrainParams


Adapt: TypeAlias = Annotated[
    Annotated[AdaptParams, Tag("used")] | Annotated[Unused, Tag("unused")], Discriminator(_is_used)
]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TrainTeacher(Section):
    """`use: train`: a network and how it is trained here."""

    use: Literal["train"]
    model: Component
    augment: Component
    train: TrainParams


class WeightsTeacher(Section):
    """`use: weights`: a file's tensors in a named or imported architecture.

    `key` names the entry of the file that holds the tensors (null: the file itself), `prefix` what their names begin
    with. `match` pairs them with the architecture's own by `names`, or by the `order` both were defined in.
    """

    use: Literal["weights"]
    file: Path
    sha256: Sha256 | None
    key: str | None
    prefix: str
    match: Literal["names", "order"]
    model: Component
    input: InputParams
    adapt: Adapt


class CheckpointTeacher(Section):
    """`use: checkpoint`: a folder that Limbeck wrote. `trust` lists the import paths its model may name."""

    use: Literal["checkpoint"]
    folder: Path
    sha256: Sha256 | None
    trust: tuple[str, ...]
    adapt: Adapt


class EncoderTeacher(Section):
    """`use: encoder`: a BERT-like text encoder in a folder as Hugging Face's library saves it, with a new head.

    `sha256` is that of its model.safetensors, `prefix` what the names in it begin with. A text is the mean of its pieces, or
    the first one.
    """

    use: Literal["encoder"]
    folder: Path
    sha256: Sha256 | None
    prefix: str
    pooling: Literal["mean", "first"]
    adapt: AdaptParams


class RegistryTeacher(Section):
    """`use: registry`: such a folder from an MLflow registry, `models:/NAME/VERSION`."""

    use: Literal["registry"]
    model: str
    uri: str
    trust: tuple[str, ...]
    adapt: Adapt

    @field_validator("model")
    @classmethod
    def _names_a_version(cls, model: str) -> str:
        if not re.fullmatch(r"models:/[^/@]+/[1-9][0-9]*", model):
            raise ValueError("expected models:/NAME/VERSION with a number: an alias moves, and DVC would not notice")
        return model

    @model_validator(mode="after")
    def _uri_has_a_scheme(self) -> "RegistryTeacher":
        check_tracking_uri(self.uri)
        return self


def _kind_of_teacher(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return f"use={use}"


Member: TypeAlias = Annotated[
    Annotated[TrainTeacher, Tag("use=train")]
    | Annotated[WeightsTeacher, Tag("use=weights")]
    | Annotated[CheckpointTeacher, Tag("use=checkpoint")]
    | Annotated[EncoderTeacher, Tag("use=encoder")]
    | Annotated[RegistryTeacher, Tag("use=registry")],
    Discriminator(_kind_of_teacher),
]


class EnsembleTeacher(Section):
    """`use: ensemble`: several teachers that answer as one. `weights` are relative; null counts all the same."""

    use: Literal["ensemble"]
    members: Annotated[tuple[Member, ...], Field(min_length=2)]
    weights: tuple[PositiveFloat, ...] | None

    @model_validator(mode="after")
    def _weighs_every_member(self) -> "EnsembleTeacher":
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.members)} members have {len(self.weights)} weights; give each one, or null")
        return self


TeacherParams: TypeAlias = Annotated[
    Annotated[TrainTeacher, Tag("use=train")]
    | Annotated[WeightsTeacher, Tag("use=weights")]
    | Annotated[CheckpointTeacher, Tag("use=checkpoint")]
    | Annotated[EncoderTeacher, Tag("use=encoder")]
    | Annotated[RegistryTeacher, Tag("use=registry")]
    | Annotated[EnsembleTeacher, Tag("use=ensemble")],
    Discriminator(_kind_of_teacher),
]
TEACHERS: dict[str, type[Section]] = {
    "use=train": TrainTeacher,
    "use=weights": WeightsTeacher,
    "use=checkpoint": CheckpointTeacher,
    "use=encoder": EncoderTeacher,
    "use=registry": RegistryTeacher,
    "use=ensemble": EnsembleTeacher,
}


class LabelParams(Section):
    """How many augmented views of every training sample the teacher answers, and whether its features are kept too.

    top: of many classes so many of the largest logits are kept, with the mass of the rest; None: all are.
    precision: what the teacher computes in; a student is seldom taught worse by the rounding of bf16.
    """

    augment: Component
    num_views: PositiveInt
    top: PositiveInt | None = None
    features: bool
    max_mb: PositiveFloat
    batch_size: PositiveInt
    precision: Precision = "fp32"
    compile: Compile
    threads: PositiveInt


class MeasureParams(Section):
    """How latency and intervals are measured."""

    warmup_runs: PositiveInt
    rounds: Annotated[int, Field(ge=3)]
    runs_per_round: PositiveInt
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class TrackingParams(Section):
    """Where runs and versions go when MLFLOW_TRACKING_URI does not say; no `champion_margin`: the champion stays."""

    uri: str
    experiment: str
    champion_margin: Quality | None

    @model_validator(mode="after")
    def _uri_has_a_scheme(self) -> "TrackingParams":
        check_tracking_uri(self.uri)
        return self


TEACHER, STORED = "teacher", "checkpoint"


class WarmStart(Component):
    """`model: {use: checkpoint}`: a student that was trained before, cut or not; its own model, widths and normalization.

    DVC sees the digest, not the folder, which stands beside params.yaml or is a whole path. Being pinned, the checkpoint
    needs no list of import paths that it may name.

    tune: `all` weights are trained; `norms` are norms (their statistics too) and biases; `nothing` goes on as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    sha256: Sha256
    tune: Tune


def _is_warm(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return "warm" if use == STORED else "fresh"


class StudentParams(Section):
    """The small network and how it is trained; `model: {use: teacher}` is the teacher itself, to be cut and quantized.

    Of a teacher of several, `{use: teacher, member: 1}` is the first of them, taught by all.
    """

    model: Annotated[Annotated[WarmStart, Tag("warm")] | Annotated[Component, Tag("fresh")], Discriminator(_is_warm)]
    train: TrainParams

    @property
    def is_teacher(self) -> bool:
        """Whether there is no other network than the teacher."""
        return self.model.use == TEACHER

    @property
    def member(self) -> int | None:
        """Which member of its teacher the student is, from 1; None where it is no part of it."""
        return self.model.keywords.get("member") if self.is_teacher else None

    @property
    def warm(self) -> WarmStart | None:
        """The stored student that training starts from; None where it starts from fresh weights."""
        return self.model if isinstance(self.model, WarmStart) else None

    @model_validator(mode="after")
    def _takes_the_teacher_as_it_is(self) -> "StudentParams":
        if not self.is_teacher:
            return self
        if others := self.model.keywords.keys() - {"member"}:
            raise ValueError(
                f"model {{use: teacher}} takes no {', '.join(sorted(others))}: it is the teacher as it is; cut it by prune"
            )
        if "member" in self.model.keywords and (type(self.member) is not int or self.member < 1):
            raise ValueError(f"model {{use: teacher}}: member is a number from 1, found {self.member!r}")
        return self


class DistillParams(Component):
    """`use` names the objective; the keys beside these are its keywords."""

    control: bool


class LatencyParams(Section):
    """Cut until this exported file's p95 is at most that, each try measured in so many rounds of so many runs."""

    variant: Literal["model.fp32", "model.int8"]
    max_p95_ms: PositiveFloat
    rounds: Annotated[int, Field(ge=3)]
    runs_per_round: PositiveInt


AIMS = ("ratio", "max_macs", "max_parameters", "latency")
"""How far to prune: the keys of which one has a value."""


class PruneParams(Component):
    """Structured pruning: `use` names the importance, or what judges blocks; the keys beside these are its keywords.

    Exactly one of `ratio`, `max_macs`, `max_parameters` and `latency` sets the aim.
    """

    scope: Literal["global", "layer", "block"]
    ratio: Share | None
    max_macs: PositiveInt | None
    max_parameters: PositiveInt | None = None
    latency: LatencyParams | None
    max_ratio: Share
    steps: PositiveInt
    round_to: PositiveInt
    recover: ShortTrainParams

    @model_validator(mode="after")
    def _has_one_aim(self) -> "PruneParams":
        found = [aim for aim in AIMS if getattr(self, aim) is not None]
        if len(found) != 1:
            every = f"{', '.join(AIMS[:-1])} and {AIMS[-1]}"
            raise ValueError(
                f"{' and '.join(found)} have values; give one of {every} a value and null to the others"
                if found
                else f"{every} are all null; give one of them a value"
            )
        if self.ratio is not None and self.ratio > self.max_ratio:
            raise ValueError(f"ratio is {self.ratio:g}, but no layer may lose more than max_ratio, {self.max_ratio:g}")
        return self


class QuantizeParams(Section):
    """int8: `use` names the scheme, the rest the rungs of the ladder, from the cheapest.

    Calibration with each of the `observers`, then up to `max_float_layers` layers in float, then training (`qat`; null
    ends the ladder before it).
    `arithmetic: auto` follows the target's `instructions`. `table_bits` are those of each number in a table of embeddings,
    `weight_bits` those of the weights of all layers but the first and the last.
    """

    use: str
    arithmetic: Literal["auto", "u8s7", "u8s8", "s8s8"]
    observers: Annotated[tuple[Component, ...], Field(min_length=1)]
    batch_size: Annotated[int, Field(ge=2)]  # the graph takes batches of 2 and more
    max_float_layers: NonNegativeInt
    qat: ShortTrainParams | None
    table_bits: Literal[4, 8] = 8
    weight_bits: Literal[4, 8] = 8


class ExportParams(Section):
    """The ONNX files and the proof that they answer like the models."""

    opset: Annotated[int, Field(ge=18, le=23)]
    max_difference: PositiveFloat
    min_equal: Quality
    num_golden: PositiveInt


class WitnessParams(Component):
    """A second processor that answers the first `num_samples` of validation; the keys beside these are its keywords."""

    num_samples: PositiveInt
    min_equal: Quality


class BenchmarkParams(Section):
    """What one request looks like on the device, and who else has to answer alike."""

    batch_size: PositiveInt
    witness: Annotated[
        Annotated[WitnessParams, Tag("used")] | Annotated[Unused, Tag("unused")], Discriminator(_is_used)
    ]


class ContractParams(Section):
    """What a shipped file must keep."""

    max_drop: Quality | None
    min_quality: Quality | None
    max_size_kb: PositiveFloat
    max_p95_ms: PositiveFloat
    max_peak_memory_mb: PositiveFloat
    max_slowdown: PositiveFloat
    require: Literal["kept", "proven"]

    @model_validator(mode="after")
    def _asks_for_quality(self) -> "ContractParams":
        if self.max_drop is None and self.min_quality is None:
            raise ValueError("max_drop and min_quality are both null; give one of them a value, or both")
        return self


class TargetParams(Section):
    """One kind of device and the chain that fills it."""

    device: Component
    instructions: Instructions
    threads: PositiveInt
    student: StudentParams
    distill: Annotated[
        Annotated[DistillParams, Tag("used")] | Annotated[Unused, Tag("unused")], Discriminator(_is_used)
    ]
    prune: Annotated[Annotated[PruneParams, Tag("used")] | Annotated[Unused, Tag("unused")], Discriminator(_is_used)]
    quantize: Annotated[
        Annotated[QuantizeParams, Tag("used")] | Annotated[Unused, Tag("unused")], Discriminator(_is_used)
    ]
    export: ExportParams
    benchmark: BenchmarkParams
    contract: ContractParams

    @model_validator(mode="after")
    def _cuts_as_far_as_the_contract_asks(self) -> "TargetParams":
        latency = None if isinstance(self.prune, Unused) else self.prune.latency
        if latency is not None and latency.max_p95_ms > self.contract.max_p95_ms:
            raise ValueError(
                f"prune.latency.max_p95_ms is {latency.max_p95_ms:g}, contract.max_p95_ms {self.contract.max_p95_ms:g}: "
                "what is cut would not keep the contract; lower the first, a tenth below the second leaves a margin"
            )
        if latency is None or latency.variant == "model.fp32":
            return self
        if isinstance(self.quantize, Unused):
            raise ValueError(
                "prune.latency.variant is model.int8, and quantize is {use: none}: no such file is made; "
                "measure model.fp32, or quantize"
            )
        if self.quantize.arithmetic != "auto":
            raise ValueError(
                "prune.latency.variant is model.int8, which is measured as instructions ask for, and quantize.arithmetic is "
                f"{self.quantize.arithmetic}: set it to auto, and instructions to what the target has"
            )
        return self


class Params(Section):
    """The whole file."""

    name: Name
    seed: Seed
    metric: str
    data: DataParams
    teacher: TeacherParams
    label: LabelParams
    measure: MeasureParams
    tracking: TrackingParams
    targets: Annotated[dict[Name, TargetParams], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_features_to_keep(self) -> "Params":
        if self.label.features and isinstance(self.teacher, EnsembleTeacher):
            raise ValueError("label.features is true, but an ensemble has no features of its own; distil its logits")
        return self

    @model_validator(mode="after")
    def _has_the_members_that_are_students(self) -> "Params":
        if isinstance(self.teacher, EnsembleTeacher):
            for name, target in self.targets.items():
                if (target.student.member or 1) > len(self.teacher.members):
                    raise ValueError(
                        f"targets.{name}.student.model.member is {target.student.member}; "
                        f"the teacher has {len(self.teacher.members)} members"
                    )
        return self

    def section(self, path: str, target: str | None) -> Any:
        """The value at a dotted path, looked up in the target first and in the root otherwise."""
        first, *_ = path.split(".")
        of_target = target is not None and first in TargetParams.model_fields
        start: Any = self.targets[target] if of_target and target is not None else self
        return reduce(getattr, path.split("."), start)


def dotted(path: str, target: str | None) -> str:
    """The key in params.yaml (as dvc.yaml lists it) for a path that a stage asks for."""
    of_target = target is not None and path.split(".")[0] in TargetParams.model_fields
    return f"targets.{target}.{path}" if of_target else path


def check_tracking_uri(uri: str) -> str:
    """Hand a tracking URI back when it is one MLflow understands.

    Raises:
        ValueError: it has no scheme, no host, or a scheme that MLflow does not serve.

    """
    from urllib.parse import urlsplit

    schemes = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.split("+")[0]
        sound = scheme in schemes and (scheme not in ("http", "https") or bool(parts.hostname)) and "://" in uri
        _ = parts.port
    except ValueError:
        sound = False
    if not sound:
        named = uri if "@" not in uri else f"...@{uri.rpartition('@')[2]}"  # no password in a message
        raise ValueError(f"{named!r} is no tracking URI; expected e.g. sqlite:///mlflow.db or http://127.0.0.1:5000")
    return uri


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file. (The runner checks the components it names, see `stages/__main__.py`.)

    Raises:
        ParamsError: naming every offending key, what was expected and what was found.

    """
    raw = _parsed(path, "run in the project's folder, or name a recipe")
    if not isinstance(raw, dict):
        raise ParamsError(
            f"{path} holds {type(raw).__name__}, expected sections such as {', '.join(Params.model_fields)}."
        )
    return checked(raw, str(path))


def checked(raw: dict[str, Any], place: str) -> Params:
    """Check values that were read, or made; `place` names them.

    Raises:
        ParamsError: naming every offending key, what was expected and what was found.

    """
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _explain(error, Params))
        raise ParamsError(f"{place} cannot be used:\n{lines}") from None


def section(path: Path, kind: type[Kind], *, missing: str, fault: str = "cannot be used") -> Kind:
    """A file that is one section: the rules of a refresh, a request, a space of values.

    Args:
        path: YAML, or JSON.
        kind: what it holds.
        missing: what to do where there is no such file.
        fault: what is said of one that is none.

    Raises:
        ParamsError: naming every offending key, what was expected and what was found.

    """
    raw = _parsed(path, missing)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _explain(error, kind))
        raise ParamsError(f"{path} {fault}:\n{lines}") from None


def _parsed(path: Path, missing: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; {missing}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is no YAML: {error}") from None


def _explain(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        loc = [str(key) for key in problem["loc"]]
        keys = [key for key in loc if not _is_tag(key)]
        where = ".".join(keys)
        if problem["type"] == "extra_forbidden":
            yield f"{where}: unknown key; {nearest(keys[-1], _siblings(loc, root))}"
        elif problem["type"] == "union_tag_invalid":
            known = [tag.strip("'").removeprefix("use=") for tag in problem["ctx"]["expected_tags"].split(", ")]
            found = problem["ctx"]["tag"].removeprefix("use=")
            if found == str(None):
                yield f"{where}.use: missing; one of {', '.join(known)}."
            else:
                yield f"{where}.use: no teacher {found!r}; {nearest(found, known)}"
        elif problem["type"] == "missing":
            shown = " (recipes/ and the comments of params.yaml show values)" if root is Params else ""
            yield f"{where}: missing; add it{shown}."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            found = problem["input"]
            shown = f" (found {found!r})" if isinstance(found, str | int | float | bool | type(None)) else ""
            yield f"{where}: {message}{shown}" if where else message


def _is_tag(key: str) -> bool:
    """Whether an entry of an error's place is pydantic's name for the kind that was chosen, not a key of the file."""
    return key in ("used", "unused", "warm", "fresh") or key.startswith("use=")


def _siblings(loc: list[str], root: type[BaseModel]) -> list[str]:
    """The keys that are known where the last of `loc` stands."""
    model = root
    for key in loc[:-1]:
        if key in TEACHERS:
            model = TEACHERS[key]
        elif model is Params and key == "targets":
            model = TargetParams
        elif key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found and not issubclass(found, Unused):
            return found
    return None
