"""Poolings by name: many token or layer states in, one vector out."""

from embedder.pooling.modules import PoolingOptions
from embedder.pooling.registry import POOLINGS, HeadLayer, Pooling, build_pooling

__all__ = ["POOLINGS", "HeadLayer", "Pooling", "PoolingOptions", "build_pooling"]
