"""What each of two processes does; see test_distributed.py.

python two_processes.py REPOSITORY PLAN.json OUT
"""

import json
import sys
from pathlib import Path

repository, plan, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
sys.path[:0] = [repository, str(Path(__file__).parent)]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from stepping import step_gradients  # noqa: E402

from embedder.training import train  # noqa: E402
from embedder.training.config_file import read_config  # noqa: E402
from embedder.training.processes import join_processes  # noqa: E402

torch.set_num_threads(1)
plans = json.loads(plan.read_text())
processes = join_processes("cpu")
for name in ("plain", "cached"):
    config = read_config(plans["gradients"], Path())
    found, chunks = step_gradients(config, processes, cached=name == "cached")
    save_file(found, out / f"{name}-{processes.rank}.safetensors")
print(chunks)
train(read_config(plans["train"], Path()), out / "trained", device="cpu")
