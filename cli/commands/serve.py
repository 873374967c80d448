"""``millpond serve``: models and indexes for other programs, over HTTP."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cli.changing import IndexEdit
from cli.console import message, warn
from cli.models import instruct, note_untrained, say_once
from cli.options import (
    DeviceOption,
    IndexSpeedOption,
    InstructionOption,
    TrustOption,
    argument,
    flag,
    option,
)
from cli.output import read_version
from cli.searching import warn_of_missing_words
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_servers
from retrieval.errors import MissingDependencyError, UsageError
from retrieval.types import check_fingerprints

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from embedder.models.sentence_transformers import Reranker
    from embedder.serving import ServedIndex, ServedModel
    from indexes import Index
    from retrieval import Fingerprint
    from retrieval.protocols import VectorIndex

KEYS_VARIABLE = "MILLPOND_KEYS"

_PACKAGES = ("fastapi", "uvicorn", "httptools", "prometheus_client")
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<folder>.+)")
BATCH_TOKENS = 4096
_CUDA_BATCH_TOKENS = 65_536


def serve(
    places: Annotated[
        list[str] | None, argument("DIR...", "Index folders to search, or NAME=DIR.")
    ] = None,
    model: Annotated[
        str | None,
        option(
            "MODEL",
            "The model to serve; every index must have been made with it.",
            "--model",
            "-m",
            shown="the models of the indexes, else millpond-135m",
        ),
    ] = None,
    instruction: InstructionOption = None,
    index: Annotated[
        list[str] | None, typer.Option("--index", "-i", hidden=True)  # as DIR, of earlier scripts
    ] = None,
    host: Annotated[str, option("HOST", "The address to listen at.")] = ("127.0.0.1"),
    port: Annotated[int, option("PORT", "The port; 0 for any free one.", min=0, max=65535)] = 8400,
    keys: Annotated[
        Path | None,
        option(
            "FILE",
            f"Bearer keys, one per line. Without it, {KEYS_VARIABLE} may hold keys "
            f"separated by spaces.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None, option("ORIGIN", "A web origin whose pages may call; repeatable.")
    ] = None,
    batch_tokens: Annotated[
        int | None,
        option(
            "N",
            "Maximum tokens per batch.",
            min=1,
            shown=f"{BATCH_TOKENS}, or {_CUDA_BATCH_TOKENS} on cuda",
        ),
    ] = None,
    queue_tokens: Annotated[
        int, option("N", "Maximum tokens in the queue; beyond that, 429.", min=1)
    ] = 131_072,
    queue_requests: Annotated[
        int, option("N", "Maximum requests at a time; beyond that, 429.", min=1)
    ] = 256,
    body_bytes: Annotated[
        int, option("N", "Maximum size of a request; beyond that, 413.", min=1)
    ] = 8 * 2**20,
    connections: Annotated[
        int, option("N", "Maximum open connections; idle ones give way.", min=1)
    ] = 512,
    rerank: Annotated[
        str | None, option("MODEL", "A CrossEncoder for /v1/rerank and TEI's /rerank.", "--rerank")
    ] = None,
    accept_token_ids: Annotated[
        bool,
        flag("--accept-token-ids", "Take token ids of the model's own tokenizer in place of text."),
    ] = False,
    accept_documents: Annotated[
        bool,
        flag(
            "--accept-documents", "Let clients with a key add and delete documents of the indexes."
        ),
    ] = False,
    device: DeviceOption = None,
    speed: IndexSpeedOption = None,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Serve embeddings and search over HTTP.

    Offers OpenAI's /v1/embeddings and /v1/models, TEI's /embed, /embed_all, /similarity, /tokenize,
    /decode and /info, Ollama's /api/embed, /v1/search, and with --rerank /v1/rerank and TEI's
    /rerank. Ctrl-C or SIGTERM stops it once all accepted requests are answered. Logs are JSON lines
    on stderr.

    \b
    Examples:
      millpond serve
      millpond serve demo-index --port 8400
      millpond serve old=index-1 new=index-2 --keys keys.txt
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "millpond serve", 'pip install "millpond[serve]"')
    from embedder.models.sentence_transformers import load_reranker
    from embedder.serving import (
        EncoderThread,
        Server,
        ServerSettings,
        build_app,
        is_loopback,
        run_app,
    )

    accepted_keys = _find_keys(keys)
    if accept_documents:
        _check_accepting(accepted_keys, instruction)
    with bind(host, port) as listener:
        thread = EncoderThread()
        opened = open_indexes([*(places or ()), *(index or ())], url, ask_key)
        for _, one in opened:
            warn_of_missing_words(one)
        models, served = thread.call(
            partial(
                _load,
                model,
                instruction,
                opened,
                device,
                speed,
                trust=trust_remote_code,
                editable=accept_documents,
            )
        )
        on_cuda = models[0].details.get("device", "").startswith("cuda")
        settings = ServerSettings(
            batch_tokens=batch_tokens or (_CUDA_BATCH_TOKENS if on_cuda else BATCH_TOKENS),
            queue_tokens=queue_tokens,
            queue_requests=queue_requests,
            body_bytes=body_bytes,
            connections=connections,
            accept_token_ids=accept_token_ids,
            keys=accepted_keys,
            local_only=is_loopback(host) and not accepted_keys,
            origins=tuple(cors or ()),
        )
        reranker: Reranker | None = None
        if rerank is not None:
            load = partial(load_reranker, trust_remote_code=trust_remote_code)
            reranker = thread.call(partial(load, rerank, device, message))
        server = Server(models, served, settings, read_version(), thread, _join, reranker)
        server.warm_up()
        if not accepted_keys and not is_loopback(host):
            warn(
                f"Everyone who can reach {host} may use this server: it asks for no key. Set keys "
                f"with --keys FILE, or listen at 127.0.0.1."
            )
        _log_as_json()
        message(f"Serving {', '.join(one.name for one in models)} at {listen(listener)}")
        run_app(build_app(server), listener)
    message("Stopped; all accepted requests are answered.")


def _find_keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys of the file, else those of the environment, else none."""
    from embedder.serving import parse_keys, read_keys

    if file is not None:
        return read_keys(file)
    given = os.environ.get(KEYS_VARIABLE)
    return () if given is None else parse_keys(given.split(), f"The variable {KEYS_VARIABLE}")


def open_indexes(places: Sequence[str], url: str | None, asks_key: bool) -> list[tuple[str, Index]]:
    """Return name and index for each ``DIR`` or ``NAME=DIR``; see ``use_stored_servers``."""
    from indexes import Index

    found: list[tuple[str, Path]] = []
    for place in places:
        named = None if Path(place).exists() else _NAMED.fullmatch(place)
        folder = Path(named["folder"] if named else place)
        name = named["name"] if named else folder.resolve().name
        found.append((name, folder))
    if url is not None or asks_key:
        use_stored_servers([folder for _, folder in found], url, asks_key)
    return [(name, Index.open(folder)) for name, folder in found]


def _join(named: Sequence[tuple[str, VectorIndex]]) -> VectorIndex:
    """Return several of the indexes that were opened as one."""
    from indexes.group import IndexGroup

    return IndexGroup([(name, cast("Index", index)) for name, index in named])


def _load(
    model: str | None,
    instruction: str | None,
    indexes: Sequence[tuple[str, Index]],
    device: str | None,
    asked_speed: str | None,
    *,
    trust: bool,
    editable: bool,
) -> tuple[list[ServedModel], list[ServedIndex]]:
    """Return the models, each loaded once, and the indexes with theirs.

    A named model has to be that of every index. Otherwise each index gets the model that made it,
    shared by those with the same fingerprint. An instruction replaces their query prompts. The
    speed that was asked for holds for all; by default each index has its own, and a named model
    that of the first.

    Raises
    ------
    FingerprintError : the model that was loaded did not make the index.
    """
    from embedder.loading import load_encoder, load_for_index

    notify = say_once()
    if not indexes:
        speed = asked_speed or "exact"
        name = instruct(model, instruction, notify)
        loaded = load_encoder(name, device, speed, notify, trust_remote_code=trust)
        return [_serve_model(loaded)], []
    models: dict[str, ServedModel] = {}
    encoders: dict[str, LoadedEncoder] = {}
    served = []
    for name, index in indexes:
        made = index.fingerprint
        key = made.digest if model is None else model
        if key not in models:
            encoders[key] = load_for_index(
                made,
                model,
                asked_speed,
                device,
                where=name,
                notify=notify,
                trust_remote_code=trust,
                instruction=instruction,
            )
            models[key] = _serve_model(encoders[key])
        other_prompt, editor = instruction is not None, encoders[key] if editable else None
        served.append(_serve_index(name, index, models[key], asked_speed, other_prompt, editor))
    return list(models.values()), served


def _serve_index(
    name: str,
    index: Index,
    model: ServedModel,
    asked_speed: str | None,
    other_prompt: bool,
    editor: LoadedEncoder | None = None,
) -> ServedIndex:
    """Return an index with its model, which follows what other processes make of its folder.

    With an ``editor``, the model that counts tokens for passages, clients may change it.
    """
    from embedder.loading import check_arithmetic, choose_speed
    from embedder.serving import ServedIndex
    from indexes.following import Follower

    edit = partial(IndexEdit, index.folder, name, editor) if editor is not None else None
    found = model.encoder.fingerprint

    def check(made: Fingerprint) -> None:
        check_fingerprints(made, found, where=name, other_prompt=other_prompt, queries_only=True)
        check_arithmetic(made, found, choose_speed(asked_speed, made), name)

    def show(index: Index) -> ServedIndex:
        manifest = index.manifest
        fields = manifest.schema.type_names
        return ServedIndex(name, index, model, fields, manifest.version, follow, other_prompt, edit)

    def follow() -> ServedIndex | None:
        newer = follower.look()
        return None if newer is None else show(newer)

    check(index.fingerprint)
    follower = Follower(index, check)
    return show(index)


def _check_accepting(keys: Sequence[str], instruction: str | None) -> None:
    """Raise UsageError unless clients may change indexes, and the model is the one of the index."""
    if not keys:
        raise UsageError(
            "--accept-documents lets clients change the indexes, and everyone could. Name the keys "
            "of those who may: --keys FILE; make one with: openssl rand -hex 32"
        )
    if instruction is not None:
        raise UsageError(
            "With --instruction the model is not quite the one that made the indexes, and adds "
            "nothing to them. Leave it or --accept-documents out."
        )


def _serve_model(encoder: LoadedEncoder) -> ServedModel:
    from embedder.serving.served import serve_embedder

    note_untrained(encoder)
    return serve_embedder(encoder)


def _log_as_json() -> None:
    """Send the server's log and uvicorn's warnings to stderr as JSON lines."""
    from embedder.serving import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, level in (("millpond.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet.

    Raises
    ------
    UsageError : the address is not one of this machine, or its port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        f"The server cannot listen at {host}, port {port} ({error.strerror}). Name an address of "
        f"this machine and a free port, or 0 for any free one."
    )


def listen(listener: socket.socket) -> str:
    """Let clients connect, and return the address; they wait until the server runs."""
    listener.listen()
    place, port = listener.getsockname()[:2]
    return f"http://[{place}]:{port}" if ":" in place else f"http://{place}:{port}"
