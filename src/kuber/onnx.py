"""Models as ONNX graphs, which run without their code."""

from kuber.learning.onnx_model import GraphLimits, OnnxModel, export

__all__ = ["GraphLimits", "OnnxModel", "export"]
