"""A PyTorch net as an ONNX graph. The twin of keras_impl/onnx.py."""

import os
import warnings

import torch

from common.parity.graphs import INPUT, LOGITS, OPSET, axes


def export(model, path: str | os.PathLike) -> None:
    """Writes `model` in evaluation mode to `path`: one file, any batch and image size, N C *S in, logits out.

    The exporter is PyTorch's own (torch.export and onnxscript).
    """
    arch, training = model.plan.arch, model.training
    shape = (2, arch.in_channels, *(2 * model.plan.total_stride + 2,) * arch.dims)
    example = torch.zeros(shape).to(next(model.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2026-11-22: PyTorch 2.13's, of its own use of pytree
        try:
            program = torch.onnx.export(
                model.eval(), (example,), dynamo=True, verbose=False, opset_version=OPSET, input_names=[INPUT],
                output_names=[LOGITS], dynamic_shapes=({0: "N", **dict(enumerate(axes(arch), 2))},),
            )  # fmt: skip
        finally:
            model.train(training)
        program.save(path)
