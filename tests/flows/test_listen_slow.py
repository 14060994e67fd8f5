"""Data that lands and a moved alias run deployments: real servers, a real worker, MLflow's own webhook."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.tracking import webhooks
from limbeck.tracking.server import forget, open_client
from tests.conftest import TINY
from tests.flows.serving import SECRETS, prefect, up
from tests.publishing.conftest import register_version
from tests.tracking.conftest import MODEL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

FLOW = """
from pathlib import Path
from prefect import flow

@flow
def seen(what: str = ""):
    with Path(__file__).with_name("seen.txt").open("a") as file:
        print(what, file=file)
"""


def deployment(folder: Path) -> dict[str, Any]:
    """One that writes down what it was run for."""
    here = "prefect.deployments.steps.set_working_directory"
    return {
        "name": "tests",
        "pull": [{here: {"directory": str(folder)}}],
        "deployments": [
            {
                "name": "seen",
                "entrypoint": "seen.py:seen",
                "work_pool": {"name": "limbeck", "job_variables": {"working_dir": str(folder)}},
                "concurrency_limit": 1,
                "triggers": [
                    {
                        "expect": ["limbeck.data-landed"],
                        "match": {"limbeck.workspace": folder.name},
                        "parameters": {"what": "{{ event.payload.folder }} {{ event.payload.entry }}"},
                    },
                    {
                        "expect": ["limbeck.registry"],
                        "match": {"limbeck.alias": "champion", "limbeck.action": "alias-set"},
                        "parameters": {"what": "{{ event.payload.model }} {{ event.payload.version }}"},
                    },
                ],
            }
        ],
    }


def test_what_happens_outside_runs_deployments(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    (tmp_path / "drop/before").mkdir(parents=True)
    (tmp_path / "drop/before/x.npy").write_bytes(b"1")
    (tmp_path / "drop/begun.partial").write_bytes(b"1")
    (tmp_path / "seen.py").write_text(FLOW)
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(deployment(tmp_path)))
    seen = tmp_path / "seen.txt"
    with up(tmp_path, **SECRETS) as running:
        running.wait_for(lambda: running.announced("before"))  # nobody waits for it yet
        prefect(running.environment, "deploy", "--all", cwd=tmp_path)
        (tmp_path / "drop/begun.partial").rename(tmp_path / "drop/tonight")
        register_version(running.mlflow, tmp_path / "export", 0.01)
        client = open_client(running.mlflow)
        client.set_registered_model_alias(MODEL, "candidate", "1")
        client.set_registered_model_alias(MODEL, "champion", "1")
        running.wait_for(lambda: seen.exists() and len(seen.read_text().splitlines()) == 2)  # `refresh` runs, too
        assert sorted(seen.read_text().splitlines()) == sorted([f"{MODEL} 1", f"{tmp_path} tonight"])
        register_again_and_ask_for_the_secret(running.mlflow, running.ports["hook"])
        told = "".join(log.read_text() for log in (tmp_path / ".limbeck/logs").glob("*.log"))
        assert SECRETS[webhooks.SECRET] not in told + (tmp_path / "up.log").read_text()
        assert all(SECRETS[webhooks.SECRET] not in " ".join(process.cmdline()) for process in running.processes())
        forget(running.mlflow)


def register_again_and_ask_for_the_secret(uri: str, port: int) -> None:
    webhooks.register(uri, f"http://127.0.0.1:{port}/registry", SECRETS[webhooks.SECRET])
    (hook,) = open_client(uri).list_webhooks()
    assert (hook.name, hook.secret) == (webhooks.NAME, None)
    assert open_client(uri).test_webhook(hook.webhook_id, "model_version.created").success
