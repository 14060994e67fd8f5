"""The loop of tutorials: PIL transforms by sample in a DataLoader with two workers, a live teacher, fp32."""

import copy
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.arm import done, read_spec
from benchmarks.loops import images, torchvision_without_cuda
from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.training import learning_rate

torchvision_without_cuda()
from PIL import Image  # noqa: E402
from torchvision import transforms  # noqa: E402


class Images(Dataset[tuple[Tensor, int]]):
    """PIL images through a transform."""

    def __init__(self, x: Any, y: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = [Image.fromarray(image) for image in x], y.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def datasets(spec: dict[str, Any], normalization: Spec) -> tuple[Images, ...]:
    """Training, validation and test images, normalized as the teacher expects them."""
    mean, std = ([value / 255 for value in values] for values in (normalization.mean, normalization.std))
    plain = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    augmented = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain]
    found = images(spec)
    return tuple(Images(*found[split], transforms.Compose(augmented if split == "train" else plain)) for split in found)


def networks(spec: dict[str, Any], place: Any) -> tuple[Spec, nn.Module, nn.Module]:
    """The teacher's normalization, the teacher, a fresh student; both take normalized images [B, C, H, W]."""
    teacher_spec, teacher = models.load(place / "teacher")
    torch.manual_seed(spec["seed"])
    student = models.build(teacher_spec.model_copy(update={"model": models.Component.model_validate(spec["student"])}))
    return teacher_spec, teacher.body, student.body


def accuracy(student: nn.Module, loader: DataLoader[Any]) -> float:
    """Share of right answers."""
    student.eval()
    with torch.no_grad():
        right = sum(int((student(x).argmax(1) == y).sum()) for x, y in loader)
    return right / len(loader.dataset)  # type: ignore[arg-type]


class Best:
    """The student of the epoch that was best on validation."""

    def __init__(self, validation: Images, test: Images) -> None:
        self.validation, self.test = (DataLoader(images, 256, num_workers=2) for images in (validation, test))
        self.quality, self.student = 0.0, nn.Module()

    def look(self, student: nn.Module) -> None:
        """An epoch has ended."""
        if (found := accuracy(student, self.validation)) >= self.quality:
            self.quality, self.student = found, copy.deepcopy(student)

    def accuracy(self) -> float:
        """On test."""
        return accuracy(self.student, self.test)


def rates(train: dict[str, Any], per_epoch: int) -> Iterator[float]:
    """The same learning rates as ours."""
    steps = train["epochs"] * per_epoch
    warmup = round(train["warmup_epochs"] * per_epoch)
    return (learning_rate(step, steps, warmup, train["lr"]) for step in range(steps))


def main() -> None:
    """Time the epochs, validation included."""
    spec, place = read_spec()
    train, alpha, temperature = spec["train"], spec["kd"]["alpha"], spec["kd"]["temperature"]
    torch.set_num_threads(train["threads"])
    began = time.perf_counter()
    normalization, teacher, student = networks(spec, place)
    training, *others = datasets(spec, normalization)
    loader = DataLoader(training, train["batch_size"], shuffle=True, num_workers=2, drop_last=True)
    best = Best(*others)
    optimizer = torch.optim.SGD(
        student.parameters(), 0.1, momentum=0.9, weight_decay=train["weight_decay"], nesterov=True
    )
    schedule = rates(train, len(loader))
    before, epochs = time.perf_counter() - began, []
    for _ in range(train["epochs"]):
        started = time.perf_counter()
        student.train()
        for x, y in loader:
            optimizer.param_groups[0]["lr"] = next(schedule)
            with torch.no_grad():
                teacher_BK = teacher(x)
            student_BK = student(x)
            soft = functional.kl_div(
                functional.log_softmax(student_BK / temperature, 1),
                functional.softmax(teacher_BK / temperature, 1),
                reduction="batchmean",
            )
            loss = alpha * temperature**2 * soft + (1 - alpha) * functional.cross_entropy(student_BK, y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), train["clip_norm"])
            optimizer.step()
        best.look(student)
        epochs.append(time.perf_counter() - started)
    done(epoch_s=epochs, before_s=before, accuracy=best.accuracy())


if __name__ == "__main__":
    sys.exit(main())
