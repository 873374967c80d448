"""What each of two processes does; see test_distributed.py.

python two_processes.py PLAN.json OUT
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from embedder.training import train
from embedder.training.config import read_config
from embedder.training.processes import join_processes
from tests.embedder.training.stepping import step_gradients

plan, out = Path(sys.argv[1]), Path(sys.argv[2])
plans = json.loads(plan.read_text())
processes = join_processes("cpu")
for name in ("plain", "cached"):
    config = read_config(plans["gradients"], Path())
    found, chunks = step_gradients(config, processes, cached=name == "cached")
    save_file(found, out / f"{name}-{processes.rank}.safetensors")
print(chunks)
for name in ("train", "taught"):
    train(read_config(plans[name], Path()), out / f"{name}-by-two", device="cpu")
