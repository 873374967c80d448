"""Small local stand-ins for a GGUF file, a package index's wheels and a model hub."""

import base64
import hashlib
import http.server
import json
import os
import threading
import zipfile

import numpy as np
import torch
from gguf import GGUFWriter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

from embedder.engine.fused import UnavailableError

WIDTH, LAYERS, HEADS, KV_HEADS, INNER = 32, 2, 4, 2, 64
SPECIALS = ["<|endoftext|>", "<|pad|>"]
MERGES = ["t h", "th e", "a n", "i n", "e r", "o n", "Ġ the", "Ġ a"]
TOKENS = [
    *SPECIALS,
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
]
NORMAL, CONTROL = 1, 3


def write_gguf(path, *, seed=0):
    """Write a random llama of 2 layers with a byte-level BPE of 266 tokens; return its SHA-256."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(len(TOKENS))
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL] * len(SPECIALS) + [NORMAL] * (len(TOKENS) - len(SPECIALS)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    for name, shape in _gguf_shapes().items():
        writer.add_tensor(name, _gguf_tensor(name, shape, seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sha256(path.read_bytes())


def _gguf_shapes():
    narrow = WIDTH // HEADS * KV_HEADS
    block = {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (narrow, WIDTH),
        "attn_v": (narrow, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }
    blocks = {
        f"blk.{layer}.{name}.weight": shape
        for layer in range(LAYERS)
        for name, shape in block.items()
    }
    return {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
    } | blocks


def _gguf_tensor(name, shape, seed):
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    random = np.random.default_rng([seed, *name.encode()])
    return (0.2 * random.standard_normal(shape)).astype(np.float32)


def set_int8(monkeypatch, there_is):
    """Let this CPU have VNNI, or neither that nor the C functions."""

    def refuse():
        raise UnavailableError("nothing was compiled")

    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: there_is)
    if not there_is:
        monkeypatch.setattr("embedder.engine.speed.load_functions", refuse)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder, package, members, *, requires=()):
    """Write PACKAGE 1.0.0 with ``members`` (name to bytes) as a wheel; return its SHA-256."""
    stem = f"{package.replace('-', '_')}-1.0.0"
    metadata = [f"Name: {package}", "Version: 1.0.0", *(f"Requires-Dist: {r}" for r in requires)]
    files = members | {
        f"{stem}.dist-info/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]).encode(),
        f"{stem}.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = f"{stem}.dist-info/RECORD"
    rows = [f"{name},sha256={_record_hash(data)},{len(data)}" for name, data in files.items()]
    wheel = folder / f"{stem}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
    return sha256(wheel.read_bytes())


def _record_hash(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def write_model_folder(folder, *, seed=0):
    """Save a random llama of 2 layers and its tokenizer as save_pretrained does."""
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIALS[1], eos_token=SPECIALS[0]
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)


class HubStandIn:
    """Serves folders on 127.0.0.1 as the Hugging Face Hub does, and notes every request.

    ``repos`` maps "OWNER/NAME" to {revision: (commit, folder)}; a commit is a revision too.
    """

    def __init__(self, repos):
        self.repos = {
            name: revisions | {commit: (commit, folder) for commit, folder in revisions.values()}
            for name, revisions in repos.items()
        }
        self.requests = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer()

            def answer(self):
                path = self.path.partition("?")[0].strip("/")
                hub.requests.append((self.command, path))
                status, headers, body = hub.response(path.split("/"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def response(self, parts):
        """Return (status, headers, body) for OWNER/NAME/resolve/REVISION/FILE or /api/models/."""
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
            revision = rest[1] if len(rest) > 1 else "main"
        else:
            name, rest = "/".join(parts[:2]), parts[2:]
            revision = rest[1] if rest[:1] == ["resolve"] else "main"
        if name not in self.repos:
            return _refusal(404, "RepoNotFound", "Repository not found")
        if revision not in self.repos[name]:
            return _refusal(404, "RevisionNotFound", "Invalid rev id")
        commit, folder = self.repos[name][revision]
        if parts[0] != "api":
            return _file_response(folder / "/".join(rest[2:]), commit)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if rest[:1] == ["tree"]:
            if len(rest) > 2:
                return _refusal(404, "EntryNotFound", "no such folder")
            listing = [
                {"type": "file", "oid": commit, "path": f.name, "size": f.stat().st_size}
                for f in files
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(listing).encode()
        info = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": []}
        info["siblings"] = [{"rfilename": file.name} for file in files]
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()


def _file_response(path, commit):
    if not path.is_file():
        status, headers, body = _refusal(404, "EntryNotFound", "Entry not found")
        return status, headers | {"X-Repo-Commit": commit}, body
    body = path.read_bytes()
    return 200, {"ETag": f'"{sha256(body)}"', "X-Repo-Commit": commit}, body


def _refusal(status, code, message):
    return status, {"X-Error-Code": code, "X-Error-Message": message}, b""


def python_environment(cache, **more):
    """Return the environment of a child Python with a cache folder of its own, and no proxy."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return kept | {"XDG_CACHE_HOME": str(cache), **more}
