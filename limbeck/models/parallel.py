"""A batch through a network in parts side by side, each on a thread of its own.

Threads that share an operator wait for each other at its end, some hundred times a step; parts of a batch meet twice, with
their answers and with their gradients. torch's nn.DataParallel is the same thing for GPUs of one process.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from limbeck.models import LAYERS, count_macs
from limbeck.models.compiled import compiled, lazily

Result = TypeVar("Result")

LEAST_SAMPLES = 32
"""Of a part: batch norm takes its statistics from it."""
LEAST_MACS = 5e7
"""Of a part: a smaller one is more Python than arithmetic, and Python runs one thread at a time (`python -m benchmarks parts`)."""


class Workers:
    """Threads that have what the caller has: contexts, autocast and inference mode; an operator has `threads` of its own on each."""

    def __init__(self, count: int, *, threads: int = 1) -> None:
        self.count = count
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,))

    def map(self, function: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """The results in order, when all are there."""
        futures = [self._submit(function, *each) for each in zip(*arguments, strict=True)]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:  # after an error, or Ctrl-C, those that have not begun
                future.cancel()

    def one_by_one(self, function: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """The same, each begun when the one before has ended: what may compile cannot do so twice at once."""
        return [self._submit(function, *each).result() for each in zip(*arguments, strict=True)]

    def _submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        modes = torch.is_inference_mode_enabled(), torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

        def call() -> Result:
            inference, dtype, enabled = modes
            with torch.inference_mode(inference), torch.autocast("cpu", dtype, enabled=enabled):
                return function(*arguments)

        return self.pool.submit(copy_context().run, call)  # torch keeps the compiler's settings in context variables


def num_parts(model: nn.Module, part_B: Tensor, threads: int) -> int:
    """How many parts to take side by side: `threads`, or 1 where a network is small or would answer something else.

    That is one that draws by chance, since threads would take turns at it in any order; and one that keeps books of what it saw
    other than norms, whose statistics are averaged.

    Args:
        model: on its device, with its layers as modules, in training or evaluation mode, as it is to run.
        part_B: the raw samples [B, ...] of one part.
        threads: what the settings say, or fewer where there are fewer parts.

    """
    has_layers = any(isinstance(module, LAYERS) for module in model.modules())
    if threads == 1 or len(part_B) < LEAST_SAMPLES or part_B.device.type != "cpu" or not has_layers:
        return 1
    tried = copy.deepcopy(model) if model.training else model  # one that was in training may hold what cannot be copied
    own = {id(buffer) for module in tried.modules() if isinstance(module, _NormBase) for buffer in module.buffers()}
    others = [buffer for buffer in tried.buffers() if id(buffer) not in own]
    before = [buffer.clone() for buffer in others]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        is_large = count_macs(tried, part_B[:1]) * len(part_B) >= LEAST_MACS
        chance = torch.get_rng_state()
        if is_large:
            tried(part_B)
        is_steady = torch.equal(chance, torch.get_rng_state()) and all(map(torch.equal, before, others))
        _copy_(others, before)
    return threads if is_large and is_steady else 1


class DataParallel(nn.Module):
    """Replicas of a network that share its weights: [B, ...] -> [B, K], each part of a batch through one of them.

    In training, norms see their own part alone (Hoffer et al. 2017, Train longer, generalize better, section 4.1, ghost batch
    normalization), and the network's statistics become the mean of what the replicas made of them.
    """

    def __init__(self, model: nn.Module, num_parts: int) -> None:
        super().__init__()
        self.model = model
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        shared = {id(weight): weight for weight in model.parameters()}
        self.replicas = [copy.deepcopy(model, dict(shared)) for _ in range(num_parts)]
        self.answering = self.replicas
        self.own = list(model.buffers())  # to walk through modules in every step would take a hundredth of it
        self.of_replicas = [list(replica.buffers()) for replica in self.replicas]
        self.alike = [
            pair for replica in self.replicas for pair in zip(replica.modules(), model.modules(), strict=True)
        ]
        self.workers = Workers(num_parts)
        self.has_answered = self.has_learned = False  # what is compiled is then, both ways

    def compile_(self, run: Callable[[nn.Module], object]) -> None:
        """Compile the replicas for what `run` does with one, if that can be done."""
        first, *others = self.replicas
        quick = compiled(first, lambda trial: self.workers.one_by_one(run, [trial]))
        if quick is not first:
            self.answering = [quick, *map(lazily, others)]

    def get_submodule(self, target: str) -> nn.Module:
        """The network's own: what an objective does to it, the replicas follow."""
        return self.model.get_submodule(target)

    def forward(self, inputs_B: Tensor) -> Tensor:
        """All answers, in order."""
        answers_BK: Tensor = _InParts.apply(self, inputs_B, *self.weights)  # type: ignore[no-untyped-call]
        return answers_BK

    def answer(self, inputs_B: Tensor) -> list[Tensor]:
        """The answer to each part, with a graph of its own."""
        for buffers in self.of_replicas:
            _copy_(buffers, self.own)
        for module, like in self.alike:
            if module.training != like.training:
                module.training = like.training
        run = self.workers.map if self.has_answered else self.workers.one_by_one
        self.has_answered = True
        answers = run(_graph_of, self.answering, inputs_B.tensor_split(len(self.replicas)))
        _mean_(self.own, self.of_replicas)
        return answers

    def gradients(self, answers: list[Tensor], gradient_BK: Tensor) -> Iterator[Tensor | None]:
        """Of each weight, from those of the answers: the sum over the parts."""
        parts = torch.split(gradient_BK, [len(answer) for answer in answers])
        wanted = partial(torch.autograd.grad, inputs=self.weights, allow_unused=True)
        run = self.workers.map if self.has_learned else self.workers.one_by_one
        self.has_learned = True
        shares = run(lambda answer, part: wanted(answer, grad_outputs=part), answers, parts)
        return (_sum(each) for each in zip(*shares, strict=True))


class _InParts(torch.autograd.Function):
    """Joins the graphs of the parts, each of which is walked back on its own thread."""

    @staticmethod
    def forward(ctx: Any, network: DataParallel, inputs_B: Tensor, *weights: Tensor) -> Tensor:
        ctx.network, ctx.answers = network, network.answer(inputs_B)
        return torch.cat([answer.detach() for answer in ctx.answers])

    @staticmethod
    def backward(ctx: Any, gradient_BK: Tensor) -> Any:
        return None, None, *ctx.network.gradients(ctx.answers, gradient_BK)


def _graph_of(network: nn.Module, inputs_B: Tensor) -> Tensor:
    with torch.enable_grad():
        answer: Tensor = network(inputs_B)
    return answer


def _copy_(into: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(into, values, strict=True):
        buffer.copy_(value)


def _mean_(into: list[Tensor], of_replicas: list[list[Tensor]]) -> None:
    """Statistics; what is the same in all stays as it is, to the bit."""
    for buffer, first, *others in zip(into, *of_replicas, strict=True):
        is_same = all(torch.equal(first, other) for other in others)
        buffer.copy_(first if is_same else reduce(torch.add, others, first) / len(of_replicas))


def _sum(shares: Iterable[Tensor | None]) -> Tensor | None:
    """In order; None where no part has one."""
    given = [share for share in shares if share is not None]
    return reduce(torch.add, given) if given else None
