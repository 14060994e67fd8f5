"""Where int8 begins and ends in a graph, as ONNX Runtime computes it.

torchao's quantizer for x86 stands on what *inductor* fuses: a convolution whose output goes into a sum stays in
float there. ONNX Runtime knows int8 sums (QLinearAdd) instead, and computes a convolution in int8 only where its
output is quantized too.
"""

from operator import attrgetter
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationConfig,
    get_input_act_qspec,
    get_module_name_filter,
    get_output_act_qspec,
)
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import QUANT_ANNOTATION_KEY, X86InductorQuantizer

from limbeck.quantization.tables import SMALLEST_STEP, Bits, annotate_table, rows_in

aten = torch.ops.aten
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
MULTIPLYING = (*CONVOLUTIONS, aten.linear.default)
SUMS = (aten.add.Tensor, aten.add_.Tensor)
AFTERWARDS = (aten.relu.default, aten.relu_.default, aten.batch_norm.default)
"""What becomes one operator with the convolution or sum before it."""
TO_FLOAT = (aten._to_copy.default, aten.to.dtype)
MOVING = (
    aten.permute.default, aten.contiguous.default, aten.clone.default, aten.reshape.default, aten.view.default,
    aten.flatten.using_ints,
)  # fmt: skip
"""What may stand between the normalization of an image and its first layer: more than `limbeck.graphs.pixels.MOVES`, whose files then keep
the arithmetic."""


class OnnxRuntimeQuantizer(X86InductorQuantizer):  # type: ignore[misc]
    """Convolutions and linear layers as on x86, sums between them in int8, every convolution's output, and tables by row.

    Weights of 4 bits are those between the first layer and the last, which makes the logits: their rounding is felt most
    (Zhou et al. 2016, DoReFa-Net, section 2.7).
    """

    def __init__(self, table_bits: Bits, weight_bits: Bits) -> None:
        super().__init__()
        self.table_bits, self.weight_bits = table_bits, weight_bits

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark what is to be int8, in place."""
        super().annotate(model)
        filters = [get_module_name_filter(name) for name, config in self.module_name_qconfig.items() if config is None]
        if self.global_config is not None:
            for node in model.graph.nodes:
                stays = any(is_left(node) for is_left in filters)
                if node.target == aten.conv1d.default and not stays:
                    self._annotate_conv_node_helper(node, False, self.global_config)  # as on x86 only of two axes
                if node.target == aten.embedding.default and not stays:
                    annotate_table(node, QUANT_ANNOTATION_KEY, self.table_bits, trained=self.global_config.is_qat)
                elif node.target in SUMS:
                    _annotate_sum(node, self.global_config)
                elif node.target in CONVOLUTIONS and _annotation(node).input_qspec_map:
                    _annotate_output(node, self.global_config)
            if self.weight_bits == 4:
                _, *inner, _ = (node for node in model.graph.nodes if node.target in MULTIPLYING)
                for node in inner:
                    if marked := _annotation(node).input_qspec_map:
                        marked[node.args[1]] = rows_in(4, trained=self.global_config.is_qat, smallest=SMALLEST_STEP)
            if get_input_act_qspec(self.global_config).dtype == torch.uint8:
                for node in model.graph.nodes:
                    marked = _annotation(node).input_qspec_map if node.target in MULTIPLYING else {}
                    if marked and (pixels := _pixels(model, node.args[0])):
                        marked[node.args[0]] = pixels
        return model

    def _nothing(self, *_: Any) -> None:
        """No pattern that swallows a sum."""

    _annotate_conv2d_binary = _annotate_conv2d_binary_unary = _nothing
    _annotate_qat_conv2d_bn_binary = _annotate_qat_conv2d_bn_binary_unary = _nothing


def _pixels(model: GraphModule, node: Node) -> FixedQParamsQuantizationSpec | None:
    """The steps in which a value is the input's own uint8 pixels, where it is (pixels - mean) * scale with one whole mean.

    Nothing is lost there, and a file leaves the arithmetic out (`limbeck.graphs.pixels`).
    """
    while node.target in MOVING:
        node = node.all_input_nodes[0]
    constants = []
    for operator in (aten.mul.Tensor, aten.sub.Tensor):
        if node.target != operator or not isinstance(node.args[1], Node) or node.args[1].op != "get_attr":
            return None
        constants.append(attrgetter(str(node.args[1].target))(model).unique())
        shape, node = node.meta["val"].shape, node.args[0]  # type: ignore[assignment]
    source = node.all_input_nodes[0] if node.target in TO_FLOAT else node
    if source.op != "placeholder" or source.meta["val"].dtype != torch.uint8 or source.meta["val"].shape != shape:
        return None  # of another shape: grey pixels made into several channels
    scale, mean = constants
    if len(scale) > 1 or len(mean) > 1 or mean != mean.round() or not 0 <= mean <= 255:
        return None
    return FixedQParamsQuantizationSpec(torch.uint8, float(scale), int(mean), 0, 255, torch.per_tensor_affine)


def _annotation(node: Node) -> QuantizationAnnotation:
    """A node's marks, made where there are none."""
    return node.meta.setdefault(QUANT_ANNOTATION_KEY, QuantizationAnnotation(_annotated=True))


def _annotate_sum(node: Node, config: QuantizationConfig) -> None:
    """Both inputs and the output are int8, unless one of them is a constant, or whole numbers are added (of codes)."""
    if not node.meta["val"].is_floating_point():
        return
    inputs = node.all_input_nodes
    if len(inputs) == 2 and all(argument.op != "get_attr" for argument in inputs):
        _annotation(node).input_qspec_map = {argument: get_input_act_qspec(config) for argument in inputs}
        _annotate_output(node, config)


def _annotate_output(node: Node, config: QuantizationConfig) -> None:
    """What comes out, after the norm and the ReLU that follow, is int8."""
    while len(node.users) == 1 and next(iter(node.users)).target in AFTERWARDS:
        node = next(iter(node.users))
    _annotation(node).output_qspec = get_output_act_qspec(config)
