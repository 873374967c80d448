"""Learning from a teacher's vectors instead of from judged pairs."""

from embedder.training.distillation.options import TeacherConfig

__all__ = ["TeacherConfig"]
