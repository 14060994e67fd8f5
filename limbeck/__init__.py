"""Limbeck: large trained models distilled into small ones that keep a contract."""
