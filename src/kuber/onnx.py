"""Models as ONNX graphs, which run without their code."""

from kuber.learning.onnx_export import export
from kuber.learning.onnx_model import GraphLimits, OnnxModel

__all__ = ["GraphLimits", "OnnxModel", "export"]
