"""Embeds on many machines: workers of a Ray cluster, or of this machine's cores."""

from indexes.ray.config import RayConfig
from indexes.ray.engine import EncoderFactory, ray_engine

__all__ = ["EncoderFactory", "RayConfig", "ray_engine"]
