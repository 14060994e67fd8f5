"""torch.compile where it pays: a network as a few loops of C++ instead of one operator after the other.

Compiled and eager networks differ in their last bits. Whether to compile therefore follows from how much is to be
computed, never from a time that was measured: the same training on one machine always ends in the same bytes.
(Ansel et al. 2024, PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
Compilation.)
"""

import copy
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.models import LAYERS, count_macs
from limbeck.params import Compile
from limbeck.quiet import quiet
from limbeck.recording import HOME

ENOUGH_MACS = 5e12
"""From here `auto` compiles: about two minutes of eager training on two cores, of which it saves more than it takes."""
CACHE = HOME / "cache/inductor"
RELEASED = (
    "struct Released {{ PyThreadState* state = PyEval_SaveThread(); ~Released() {{ PyEval_RestoreThread(state); }} }}; "
    "[](auto... values) {{ Released now; kernel(values...); }}({}); Py_RETURN_NONE;"
)
"""How Python is to call a compiled loop. torch holds the interpreter's lock meanwhile, and another thread's part of the batch waits."""


def pays(compile: Compile, model: nn.Module, sample: Tensor, num_passes: int) -> bool:
    """Whether to compile a network that is to take `num_passes` samples forward (count 3 for one that trains on).

    Never on CUDA, and never a graph that is being quantized, whose observers write into themselves.

    Args:
        compile: what the settings say.
        model: on its device, with its layers as modules.
        sample: one raw sample [1, ...].
        num_passes: samples times passes.

    """
    has_layers = any(isinstance(module, LAYERS) for module in model.modules())
    if compile == "never" or not has_layers or sample.device.type != "cpu":
        return False
    return compile == "always" or count_macs(model, sample) * num_passes >= ENOUGH_MACS


def lazily(model: nn.Module) -> nn.Module:
    """The network, compiled when it first answers."""
    made: Any = torch.compile(model, dynamic=False)  # a module, whatever its annotation says
    return made  # type: ignore[no-any-return]


def compiled(model: nn.Module, run: Callable[[nn.Module], object], *, frozen: bool = False) -> nn.Module:
    """The network compiled for what `run` does with one, sharing its weights; itself, with a warning, where that fails.

    A copy is tried first: a compiler that is missing or that gives up must not leave half a step in the network. One that is
    `frozen` only answers, without gradients: its weights become constants with norms folded into them, and need no copy.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE.resolve()))
    with quiet():
        try:
            import torch._inductor.config as inductor
            from torch._inductor.codecache import CppPythonBindingsCodeCache

            CppPythonBindingsCodeCache.call_entry_function = RELEASED
            inductor.compile_threads = 1  # no pool of processes that could outlive a killed stage
            inductor.cpp.use_two_step_variance_threshold = 2**62  # batch norm's in two passes, of any size
            torch._dynamo.reset()  # what another network left would be taken for this one at other sizes
            tried = lazily(model if frozen else copy.deepcopy(model))
            with torch.random.fork_rng(devices=[]), inductor.patch(freezing=frozen):
                run(tried)
        except Exception as error:  # compilers fail in their own ways
            logging.getLogger(__name__).warning(
                "this network is not compiled and goes on slower (%s: %s). A C++ compiler and Python's headers are needed "
                "(Debian: g++ python3-dev); compile: never silences this.",
                type(error).__name__,
                str(error).strip().partition("\n")[0][:200],
            )
            torch._dynamo.reset()
            return model
    return tried if frozen else lazily(model)
