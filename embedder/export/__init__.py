"""Writes a model for other engines: ONNX Runtime, and llama.cpp."""

from embedder.export.folder import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
