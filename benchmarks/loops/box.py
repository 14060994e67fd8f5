"""torchdistill's DistillationBox with its KDLoss, over the textbook's images and transforms (Matsubara 2021)."""

import sys
import time

import torch
from torch.utils.data import RandomSampler

from benchmarks.arm import done, read_spec
from benchmarks.loops.textbook import Best, datasets, networks, rates


def main() -> None:
    """Time the epochs, validation included."""
    from torchdistill.core.distillation import DistillationBox  # needs the torchvision that textbook makes importable

    spec, place = read_spec()
    train = spec["train"]
    torch.set_num_threads(train["threads"])
    began = time.perf_counter()
    normalization, teacher, student = networks(spec, place)
    training, *others = datasets(spec, normalization)
    logits = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
    }
    # its alpha weighs the labels, ours the teacher
    kd = {
        "key": "KDLoss",
        "kwargs": {**logits, "temperature": spec["kd"]["temperature"], "alpha": 1 - spec["kd"]["alpha"]},
    }
    box = DistillationBox(
        teacher, student, {"train": training},
        {
            "num_epochs": train["epochs"],
            "train_data_loader": {
                "dataset_id": "train", "sampler": {"class_or_func": RandomSampler},
                "kwargs": {"batch_size": train["batch_size"], "num_workers": 2, "drop_last": True},
            },
            "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
            "student": {"forward_proc": "forward_batch_only"},
            "optimizer": {
                "key": "SGD", "max_grad_norm": train["clip_norm"],
                "kwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": train["weight_decay"], "nesterov": True},
            },
            "criterion": {
                "key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}},
            },
        },
        torch.device("cpu"), [], False, 1,
    )  # fmt: skip
    best = Best(*others)
    schedule = rates(train, len(box.train_data_loader))
    before, epochs = time.perf_counter() - began, []
    for epoch in range(train["epochs"]):
        started = time.perf_counter()
        box.pre_epoch_process(epoch=epoch)
        for x, y, supplement in box.train_data_loader:
            box.optimizer.param_groups[0]["lr"] = next(schedule)
            box.post_forward_process(box.forward_process(x, y, supplement))
        best.look(student)
        box.post_epoch_process()
        epochs.append(time.perf_counter() - started)
    done(epoch_s=epochs, before_s=before, accuracy=best.accuracy())


if __name__ == "__main__":
    sys.exit(main())
