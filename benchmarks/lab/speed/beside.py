"""What commands keep of their quiet speed beside busy processes, and what ONNX Runtime keeps.

    python -m benchmarks.lab.speed.beside SENTENCES.tsv --busy 2 --rounds 2

The file is an STS file. Each contestant is a whole process, as a user starts it, whose work is long
enough that its start counts for little; each is timed quiet and beside the busy processes in turn.
ONNX Runtime computes what ``millpond export`` writes, in batches of 32 texts of similar length.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lab.speed.encode import busy_processes
from benchmarks.lab.speed.interleaved import describe_machine, print_lines, say, spread
from benchmarks.report.markdown import table_lines
from retrieval.corpus.labelled import read_sts
from retrieval.errors import FailureError

ONNX = "ONNX Runtime"
_FAST = 4
"""How many times as many texts ``fast`` gets."""

_ENCODE_ONNX = """
import sys
from pathlib import Path
from benchmarks.lab.speed.baselines import OnnxClient, encode_by_length
texts = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
encode_by_length(OnnxClient(Path(sys.argv[1])).encode, texts, 32)
"""
_SERVE = """
import json, subprocess, sys, threading, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
model, speed, file = sys.argv[1:]
command = [sys.executable, "-m", "cli", "serve", "--model", model, "--speed", speed, "--port", "0"]
texts = Path(file).read_text(encoding="utf-8").splitlines()
def post(start):
    body = json.dumps({"input": texts[start : start + 32]}).encode()
    how = {"Content-Type": "application/json"}
    asked = urllib.request.Request(url + "/v1/embeddings", body, how)
    with urllib.request.urlopen(asked) as reply:
        reply.read()
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    try:
        for line in server.stderr:
            if line.startswith("Serving"):
                url = line.split()[-1]
                break
            sys.stderr.write(line)
        threading.Thread(target=server.stderr.read, daemon=True).start()
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(post, range(0, len(texts), 32)))
    finally:
        server.terminate()
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every contestant, quiet and not, and print a table; return the exit code."""
    options = _parse(arguments)
    return print_lines(lambda: compare(options))


def compare(options: argparse.Namespace) -> list[str]:
    """Measure, and return the machine and a table in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        commands = write_commands(options, Path(folder))
        seconds = time_commands(commands, options, Path(folder))
    return [describe_machine(), *format_kept(seconds)]


def write_commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Return a command for each contestant, and write what they read."""
    pairs = read_sts(options.file)
    texts = list(dict.fromkeys([*pairs.first, *pairs.second]))
    few = texts[: options.texts]
    many = (texts * (_FAST * options.texts // len(texts) + 1))[: _FAST * options.texts]
    for name, chosen in (("exact", few), ("fast", many)):
        (folder / f"{name}.txt").write_text("\n".join(chosen), encoding="utf-8")
        rows = (f"{i}\t{chosen[i]}\t{chosen[i + 1]}" for i in range(0, len(chosen) - 1, 2))
        lines = ["score\tsentence1\tsentence2", *rows]
        (folder / f"{name}.tsv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "pairs.jsonl").write_text(
        "\n".join(
            json.dumps({"query": a, "positive": b})
            for a, b, score in zip(pairs.first, pairs.second, pairs.scores, strict=True)
            if score > max(pairs.scores) / 2
        ),
        encoding="utf-8",
    )
    (folder / "train.toml").write_text(_TRAIN.format(steps=options.steps), encoding="utf-8")
    python, model, out = sys.executable, options.model, str(folder / "out")
    cli = [python, "-m", "cli"]
    _run([*cli, "export", model, "--out", str(folder / "onnx")])
    commands = {ONNX: [python, "-c", _ENCODE_ONNX, str(folder / "onnx"), str(folder / "exact.txt")]}
    for speed in ("exact", "fast"):
        how, text = ["--model", model, "--speed", speed], str(folder / f"{speed}.txt")
        commands |= {
            f"embed, {speed}": [*cli, "embed", text, "--out", out + ".npy", *how],
            f"bench, {speed}": [*cli, "bench", *how, "-t", text[:-3] + "tsv", "--out", out],
            f"serve, {speed}": [python, "-c", _SERVE, model, speed, text],
        }
    commands["train"] = [*cli, "train", str(folder / "train.toml"), "--out", out]
    return {name: each for name, each in commands.items() if name == ONNX or options.only in name}


_TRAIN = """
batch_pairs = 32
steps = {steps}
[model]
base = "smollm2-135m"
pooling = "mean"
attention = "causal"
base_layers = 12
[[data]]
path = "pairs.jsonl"
"""


def time_commands(
    commands: dict[str, list[str]], options: argparse.Namespace, folder: Path
) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each contestant, quiet and busy, of every round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(options.rounds):
        for name, command in commands.items():
            quiet, busy = (_time(command, count, folder) for count in (0, options.busy))
            say(f"Round {number + 1}: {name} took {quiet:.1f} s, beside others {busy:.1f} s")
            found[name].append((quiet, busy))
    return found


def _time(command: list[str], busy: int, folder: Path) -> float:
    for left in folder.glob("out*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with busy_processes(busy):
        began = time.perf_counter()
        _run(command)
        return time.perf_counter() - began


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailureError(f"{' '.join(command)}: {done.stderr}")


def format_kept(seconds: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Return the lines of a table in Markdown: what each keeps, alone and over ONNX Runtime's."""
    kept = {name: [quiet / busy for quiet, busy in found] for name, found in seconds.items()}
    rows = []
    for name, found in seconds.items():
        quiet, busy = (statistics.median(each) for each in zip(*found, strict=True))
        over = [own / theirs for own, theirs in zip(kept[name], kept[ONNX], strict=True)]
        rows.append([name, f"{quiet:.1f}", f"{busy:.1f}", spread(kept[name]), spread(over)])
    heads = ["command", "quiet, s", "beside, s", "keeps", f"over {ONNX}'s"]
    return list(table_lines(heads, rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="an STS file")
    parser.add_argument("--model", default="millpond-135m")
    parser.add_argument("--busy", type=int, default=2, help="processes that compute beside")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=1500, help="for exact; fast gets 4 times more")
    parser.add_argument("--steps", type=int, default=8, help="of training")
    parser.add_argument("--only", default="", help="contestants whose name has this, and ONNX's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
