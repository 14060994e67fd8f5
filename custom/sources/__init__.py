"""Your data sources: `def mine(*, folder: str) -> limbeck.data.sources.source.Source`; copy template.py."""
