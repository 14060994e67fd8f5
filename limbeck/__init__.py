"""Limbeck: large trained models distilled into small ones that keep a contract."""

import os

# onnxruntime's wheels tell Microsoft which models they open, names and hashes included. Only this variable
# stops all of it, and only before the first import; `disable_telemetry_events()` comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
