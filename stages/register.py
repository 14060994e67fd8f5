"""The contract decides; the registry remembers."""

import json
import os
from pathlib import Path
from typing import Any

from limbeck import ledger
from limbeck.atomic import write_json
from limbeck.edge import manifest as manifest_file
from limbeck.edge.measure import answering
from limbeck.evaluation import Scorer, Scores
from limbeck.params import ContractParams, Instructions, MeasureParams, Out, TrackingParams
from limbeck.recording import Report
from limbeck.selection import judge
from limbeck.tracking.lineage import tags_of
from limbeck.tracking.promotion import promote
from limbeck.tracking.registry import register
from limbeck.tracking.runs import replay_finished
from limbeck.tracking.server import home_of, tracking_uri

PREDICT_BATCH = 256


def run(
    *,
    data: Path,
    exported: Path,
    quality: Path,
    latency: Path,
    out: Out,
    contract: ContractParams,
    instructions: Instructions,
    measure: MeasureParams,
    metric: str,
    name: str,
    target: str,
    tracking: TrackingParams,
    report: Report,
) -> dict[str, Any]:
    """Decide, register what ships, let it challenge the champion; `out` is the choice alone."""
    uri = tracking_uri(tracking.uri)
    if os.environ.get("LIMBECK_REPLAY") != "flow":  # nobody replays live: send what earlier stages recorded, and us
        replay_finished(uri=uri, experiment=tracking.experiment)
        report.when_ended(lambda: replay_finished(uri=uri, experiment=tracking.experiment))
    manifest = manifest_file.read(exported)
    figures = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (quality, latency)}
    decision = judge(
        manifest, figures["quality"], figures["latency"], contract, identity=manifest_file.identity(exported)
    )
    for note in decision.notes:
        report.log(note)
    tags = tags_of(
        decision, manifest, figures["quality"], figures["latency"], contract=contract, instructions=instructions
    )
    if tags["limbeck.git"] == "none":
        report.warn("no git commit yet; the version's lineage says git=none.")
    model = f"{name}-{target}"
    version = register(
        model,
        exported,
        manifest,
        decision.variant,
        tags=tags,
        report=report,
        uri=uri,
        experiment=tracking.experiment,
    )
    report.log(f"{model} version {version.number} {'registered' if version.is_new else 'was registered already'}")
    write_json(out, decision.choice())
    if tracking.champion_margin is None:
        report.log(f"{model}: tracking.champion_margin is null, so version {version.number} stays a candidate")
        return {}
    score = Scorer(metric, data)

    def scores_of(file: Path) -> Scores:
        with answering(file, threads=1, batch_size=PREDICT_BATCH) as answers:
            return score(answers, "test")

    promotion = promote(
        version,
        exported / f"{decision.variant}.onnx",
        manifest,
        scores_of=scores_of,
        measure=measure,
        margin=tracking.champion_margin,
        uri=uri,
        ledger_file=home_of(Path()) / ledger.NAME,
    )
    report.log(f"{model} champion {'moved' if promotion.moved else 'stays'}: {promotion.why}")
    return {}
