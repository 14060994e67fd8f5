"""A day in which the world moves twice and a scheduled worker follows it: `python -m examples.day`."""
