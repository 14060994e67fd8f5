"""The flow `renew` and its deployment. That it really renews is shown in tests/publishing, against a server."""

import shutil
from pathlib import Path

import pytest
import yaml

from flows.renew import renew
from tests.conftest import ROOT, TINY


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_what_hinders_a_renewal_is_the_message_of_the_failed_run(tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "params.yaml")
    state = renew.with_options(retries=0)(tmp_path, return_state=True)
    assert state.is_failed()
    assert "make them with `limbeck keys init`" in str(state.message)


def test_metadata_are_renewed_several_times_before_they_expire() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = [each for each in deployments if each["name"] == "renew"]
    assert found["entrypoint"] == "flows/renew.py:renew"
    assert [schedule["cron"] for schedule in found["schedules"]] == ["5 */6 * * *"]
