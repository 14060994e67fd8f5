"""The teacher's logits for augmented views of every training sample."""

from pathlib import Path
from typing import Any

from limbeck import checkpoint, labels, models
from limbeck.data.splits import read, read_meta
from limbeck.params import LabelParams, Out
from limbeck.prediction import NetworkScorer
from limbeck.recording import Report


def run(
    *, data: Path, teacher: Path, out: Out, label: LabelParams, metric: str, seed: int, report: Report
) -> dict[str, Any]:
    """Let the teacher answer `num_views` views and store its logits in fp16, its features too when asked."""
    _, network = models.load(teacher)
    quality = checkpoint.noted_quality(teacher, metric=metric, data_digest=read_meta(data).digest)
    if quality is None:
        quality = NetworkScorer(metric, data).quality(network)
    labels.write(
        out, data, network, label,
        seed=seed, teacher_digest=checkpoint.digest_of(teacher), teacher_quality=quality, progress=report.progress,
    )  # fmt: skip
    meta = read_meta(data)
    written = labels.read_labels_meta(out)
    num_values = labels.num_values(len(meta.classes), written.top)
    num_values += labels.num_features(network, read(data, "validation")[0]) if label.features else 0
    megabytes = labels.required_mb(label.num_views, meta.counts["train"], num_values)
    figures = {"views": label.num_views, "megabytes": megabytes, "teacher_validation": quality}
    if written.top is None:
        return figures
    report.log(
        f"{written.top} of {len(meta.classes)} logits are kept; the mean KL of the teacher's answers to them is "
        f"{written.lost_nats:.4f} nats"
    )
    return {**figures, "top": written.top, "lost_nats": written.lost_nats}
