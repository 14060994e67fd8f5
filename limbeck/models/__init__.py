"""Networks: raw samples in, logits out, with the preprocessing inside.

A builder takes the shape of one preprocessed sample and the number of classes, and keyword-only sizes:
`def my_model(shape, num_classes, *, width: int) -> nn.Module`. Another package's is called with `num_classes=`
(`limbeck/models/imported.py`). Legend: B batch, H W C image, T C sequence, F features, L codes, K classes.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck import checkpoint
from limbeck.checkpoint import Cut, Spec
from limbeck.components import Component, bind, resolve
from limbeck.kinds import kind_of
from limbeck.models import imported
from limbeck.models.bert import bert
from limbeck.models.convnet import convnet
from limbeck.models.ds_cnn import ds_cnn
from limbeck.models.ensemble import ensemble
from limbeck.models.lean_resnet import lean_resnet
from limbeck.models.logmel import LogMel, logmel
from limbeck.models.mlp import mlp
from limbeck.models.mobilenet import mobilenet
from limbeck.models.resnet import resnet
from limbeck.models.resnet1d import resnet1d
from limbeck.models.sequential import sequential
from limbeck.models.skipping import skip_
from limbeck.models.text import ngram_embedding, text_cnn, text_transformer
from limbeck.models.two_tower import two_tower

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet,
    "lean_resnet": lean_resnet,
    "convnet": convnet,
    "mobilenet": mobilenet,
    "mlp": mlp,
    "ngram_embedding": ngram_embedding,
    "text_cnn": text_cnn,
    "text_transformer": text_transformer,
    "bert": bert,
    "resnet1d": resnet1d,
    "ds_cnn": ds_cnn,
    "logmel": logmel,
    "two_tower": two_tower,
    "sequential": sequential,
    "ensemble": ensemble,
}

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Layers that multiply and accumulate."""
CUTTABLE = (*LAYERS, nn.BatchNorm1d, nn.BatchNorm2d)
"""Modules whose width a checkpoint can remember."""


def builder(model: Component) -> Callable[[tuple[int, ...], int], nn.Module]:
    """The builder that a component names: ours by table or `custom.`, or any package's.

    Raises:
        ComponentError: it does not exist or does not accept its keywords.

    """
    function = resolve(model, MODELS, "model")
    return bind(model, MODELS, "model") if imported.is_own(function) else imported.builder_of(function, model)


class Preprocess(nn.Module):
    """Raw samples to normalized float32, channels first.

    Images [B, H, W, C] -> [B, C, H, W], sequences [B, T, C] -> [B, C, T], features [B, F] as they lie. Codes [B, L] pass.
    Grey images become as many equal channels as `mean` has values; `size` scales images to size x size.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.kind, self.size = kind_of(spec.shape, spec.dtype), spec.size
        if self.kind == "codes":
            return
        mean, scale = torch.tensor(spec.mean), 1 / torch.tensor(spec.std)
        if self.kind == "image":  # a row of pixels [W, C]: ONNX Runtime takes three times as long for single ones
            mean, scale = mean.repeat(spec.shape[1], 1), scale.repeat(spec.shape[1], 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        """[B, ...] raw -> normalized float32; codes as they are."""
        if self.kind == "codes":
            return raw
        normalized = (raw.float() - self.mean) * self.scale
        if self.kind == "sequence":
            return normalized.transpose(1, 2).contiguous()
        if self.kind == "features":
            return normalized
        images_BCHW = normalized.permute(0, 3, 1, 2).contiguous()
        if self.size is None:
            return images_BCHW
        return functional.interpolate(images_BCHW, (self.size, self.size), mode="bilinear", align_corners=False)


class Network(nn.Module):
    """Preprocessing and body: `input` [B, ...] raw -> `logits` [B, K]."""

    def __init__(self, preprocess: Preprocess, body: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.body = preprocess, body

    def forward(self, input: Tensor) -> Tensor:
        """[B, ...] raw -> logits [B, K] float32."""
        logits: Tensor = self.body(self.preprocess(input))
        return logits


def build(spec: Spec) -> Network:
    """The network that a spec describes, with fresh weights from torch's current generator."""
    body = builder(spec.model)(body_shape(spec), len(spec.classes))
    skip_(body, spec.skipped)
    apply_cuts_(body, spec.cuts)
    return Network(Preprocess(spec), body)


def body_shape(spec: Spec) -> tuple[int, ...]:
    """The shape of one preprocessed sample: [C, H, W] of an image, [C, T] of a sequence, others as they lie."""
    kind = kind_of(spec.shape, spec.dtype)
    if kind == "sequence":
        return spec.shape[::-1]
    if kind != "image":
        return spec.shape
    height, width, channels = spec.shape
    return (max(channels, len(spec.mean)), spec.size or height, spec.size or width)


def apply_cuts_(body: nn.Module, cuts: dict[str, Cut]) -> None:
    """Give named modules the widths that pruning left, in place; their weights are fresh."""
    for name, cut in cuts.items():
        module = body.get_submodule(name)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.in_channels, module.out_channels, module.groups = cut.inputs, cut.outputs, cut.groups
            shape = (cut.outputs, cut.inputs // cut.groups, *module.kernel_size)
            module.weight = nn.Parameter(torch.empty(shape))
            if module.bias is not None:
                module.bias = nn.Parameter(torch.empty(cut.outputs))
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = cut.inputs, cut.outputs
            module.weight = nn.Parameter(torch.empty(cut.outputs, cut.inputs))
            if module.bias is not None:
                module.bias = nn.Parameter(torch.empty(cut.outputs))
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            fresh = type(module)(cut.outputs, eps=module.eps, momentum=module.momentum)
            module.__dict__.update(fresh.__dict__)
        else:
            raise AssertionError(f"{name} is a {type(module).__name__}, which pruning never cuts")


def save(folder: Path, spec: Spec, network: nn.Module) -> None:
    """Write a float network's checkpoint."""
    checkpoint.save(folder, spec, network.state_dict())


def load(folder: Path) -> tuple[Spec, Network]:
    """Build a float network from its checkpoint, in evaluation mode.

    Raises:
        CheckpointError: the folder is corrupt, or its weights do not fit its spec.

    """
    spec, state = checkpoint.read(folder)
    assert spec.quantization is None, f"{folder} is quantized; limbeck.quantization.load builds it"
    network = build(spec)
    checkpoint.load_strictly_(network, state, folder)
    return spec, network.eval()


def num_params(module: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(network: nn.Module, sample: Tensor) -> int:
    """Multiply-accumulates of convolutions, linear layers and spectra for one raw sample [1, ...]."""
    total = sum(module.macs for module in network.modules() if isinstance(module, LogMel))

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            taps = module.weight[0].numel()
        else:
            assert isinstance(module, nn.Linear)
            taps = module.in_features
        total += output.numel() * taps

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, LAYERS)]
    was_training = network.training
    with torch.no_grad():
        network.eval()(sample)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    return total


def torch_dtype(name: str) -> torch.dtype:
    """`uint8` -> torch.uint8."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found
