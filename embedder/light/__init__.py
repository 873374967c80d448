"""One text through a small decoder, in numpy alone: what a single search on a CPU needs.

Importing torch and transformers takes longer than anything else that ``millpond search`` does.
``load_light_encoder`` loads the common kind of model without them: one that millpond saved, LoRA
or whole, with a pooling without weights (and perhaps a whitening), over a Llama, Mistral or Qwen.
Its vectors are the Embedder's to 1e-5 and its fingerprint is the same. For every other
model it returns None, and the caller takes the Embedder.
"""

from embedder.light.encoder import LightEncoder, load_light_encoder

__all__ = ["LightEncoder", "load_light_encoder"]
