"""Embeds on many machines: workers of a Ray cluster, or of this machine's cores."""

from indexes.engines.ray.engine import EncoderFactory, ray_engine
from indexes.engines.ray.session import RayConfig

__all__ = ["EncoderFactory", "RayConfig", "ray_engine"]
