"""Prefect: when and where the stages of dvc.yaml run. What depends on what is DVC's, and read from it."""
