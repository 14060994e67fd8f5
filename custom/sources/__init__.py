"""Your data sources: `def my_source(*, folder: str) -> limbeck.data.sources.Source`. Read by prepare."""
