from flows import environment


def test_a_stage_knows_its_run_and_whom_not_to_outlive() -> None:
    given = environment.for_stages(group="g", mark={"LIMBECK_RUN": "m"}, uri="sqlite:///x.db")
    assert (given["LIMBECK_GROUP"], given["LIMBECK_RUN"], given["LIMBECK_REPLAY"]) == ("g", "m", "flow")
    assert given["LIMBECK_WATCH"].isdigit()
    assert given["MLFLOW_DISABLE_TELEMETRY"] == "true"
