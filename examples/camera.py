"""Perceive, infer, act: a camera's folder, the device's model, and a fallback for what the model is not sure of.

    limbeck-edge run --home device/ --app examples/camera.py:watch frames/ 0.8

Frames are .npy arrays of one raw sample [H, W, C], or pictures where Pillow is installed. What is done with a frame is a
line of JSON on standard output: here stand the motor, the valve, the message. A frame below the threshold is deferred:
to a larger model on a server, a person, or the safe state. While a batch of frames is acted on, updates wait.
"""

import json
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError
from limbeck.edge.agent import Agent, Answer

EVERY_S = 0.2


def perceive(frame: Path, agent: Agent) -> NDArray[np.generic]:
    """One raw sample [1, H, W, C] as the model takes it; preprocessing is inside the model."""
    if frame.suffix == ".npy":
        return np.load(frame, allow_pickle=False)[None]
    from PIL import Image

    height, width, channels = agent.manifest.shape
    with Image.open(frame) as picture:
        pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB").resize((width, height)))
    return pixels.reshape(1, height, width, channels)


def act(frame: Path, answer: Answer) -> None:
    """The model is sure."""
    print(
        json.dumps({"frame": frame.name, "class": answer.label, "confidence": round(answer.confidence, 3)}), flush=True
    )


def defer(frame: Path, why: str) -> None:
    """The model is not: leave it to the fallback."""
    print(json.dumps({"frame": frame.name, "deferred": why}), flush=True)


def watch(agent: Agent, stopped: threading.Event, folder: str, threshold: str = "0.8") -> None:
    """Treat every new frame of a folder, oldest first, until told to stop. Cameras rename frames into place."""
    seen: set[str] = set()
    while not stopped.is_set():
        new = [path for path in sorted(Path(folder).iterdir()) if path.name not in seen and path.suffix != ".partial"]
        if new:
            with agent.hold():
                for frame in new:
                    seen.add(frame.name)
                    treat(frame, agent, float(threshold))
        stopped.wait(EVERY_S)


def treat(frame: Path, agent: Agent, threshold: float) -> None:
    """Perceive, infer, act; what cannot be read or answered is the fallback's, too."""
    try:
        (answer,) = agent.classify(perceive(frame, agent))
    except (EdgeError, OSError, ValueError) as error:
        defer(frame, str(error))
    else:
        if answer.confidence >= threshold:
            act(frame, answer)
        else:
            defer(frame, f"{answer.label} with confidence {answer.confidence:.2f}")
