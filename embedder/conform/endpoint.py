"""Embeddings of an HTTP endpoint: OpenAI's API, TEI's or Ollama's. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from embedder.conform.http import Client
from retrieval.errors import EndpointError, UnknownNameError, UsageError
from retrieval.protocols import Notify, Vectors, silent

Side = Literal["query", "document"]


@dataclass(frozen=True)
class Api:
    """How one kind of server is asked.

    Attributes
    ----------
    embed_path : where texts are posted.
    list_path : what only this kind of server answers; it lists the models, or names the one.
    field : of the request, holds the texts.
    extra : further fields of every request.
    read : the vectors in an answer, in the order of the texts; raises KeyError, TypeError or
        IndexError where the answer is another.
    """

    embed_path: str
    list_path: str
    field: str
    extra: Mapping[str, Any]
    read: Callable[[Any], Sequence[Any]]


def _read_openai(answer: Any) -> Sequence[Any]:
    ordered = sorted(answer["data"], key=lambda item: int(item["index"]))
    return [item["embedding"] for item in ordered]


APIS: dict[str, Api] = {
    "openai": Api(
        "/v1/embeddings", "/v1/models", "input", {"encoding_format": "float"}, _read_openai
    ),
    "ollama": Api(
        "/api/embed", "/api/tags", "input", {"truncate": True}, lambda answer: answer["embeddings"]
    ),
    "tei": Api("/embed", "/info", "inputs", {"truncate": True}, lambda answer: list(answer)),
}


def is_url(text: str) -> bool:
    """Return whether this names an endpoint, and not a model."""
    return text.lower().startswith(("http://", "https://"))


class Endpoint:
    """A model behind an HTTP API.

    Parameters
    ----------
    client : speaks to the server.
    api : a name of ``APIS``.
    model : what requests name; "" where the server has only one.
    extra : further fields of each request.

    Attributes
    ----------
    name : the address, the API and the model in words.
    """

    def __init__(
        self, client: Client, api: str, model: str, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._client = client
        self._api = APIS[api]
        self._fields = {
            **({"model": model} if model else {}),
            **self._api.extra,
            **(extra or {}),
        }
        self.name = f"{client.base} ({api}{f', {model}' if model else ''})"
        self._width = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D) of texts sent in one request.

        Raises
        ------
        RefusedError : the server takes these texts for wrong (400, 413, 422).
        EndpointError : it does not answer, or not with a list of N numbers lists of one length.
        """
        path = self._api.embed_path
        answer = self._client.post(path, {**self._fields, self._api.field: list(texts)})
        try:
            rows = self._api.read(answer)
            vectors = np.asarray(rows, dtype=np.float32)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise EndpointError(
                f"{self._client.base}{path}: the answer is JSON, but holds no vectors: "
                f"{str(answer)[:80]!r}. Check the address, or name the API with --api."
            ) from error
        self._check(vectors, len(texts), path)
        return vectors

    def _check(self, vectors: Vectors, count: int, path: str) -> None:
        where = f"{self._client.base}{path}"
        if vectors.ndim != 2 or vectors.shape[0] != count or vectors.shape[1] == 0:
            raise EndpointError(
                f"{where}: {count} texts were answered with numbers of shape "
                f"{tuple(vectors.shape)}; expected one vector per text."
            )
        if not np.isfinite(vectors).all():
            raise EndpointError(f"{where}: a vector holds NaN or infinity.")
        self._width = self._width or vectors.shape[1]
        if vectors.shape[1] != self._width:
            raise EndpointError(
                f"{where}: one text has {self._width} numbers and another {vectors.shape[1]}; "
                f"expected the same for every text."
            )


def open_endpoint(
    url: str,
    *,
    api: str | None = None,
    model: str | None = None,
    key_variable: str | None = None,
    side: Side = "document",
    notify: Notify = silent,
) -> Endpoint:
    """Return the endpoint at an address, its API and its model found out where not given.

    Parameters
    ----------
    url : of the server, with or without the path of the API.
    api : a name of ``APIS``.
    model : what the server calls the model; needed where it has several.
    key_variable : the environment variable that holds the key.
    side : which prompt a millpond server is asked to use; others are not asked.

    Raises
    ------
    UsageError : the address is none, there is no such API, or the variable is empty.
    EndpointError : nothing answers there as one of the APIs does.
    """
    if api is not None and api not in APIS:
        raise UnknownNameError("API", api, APIS)
    base, named = _split(url)
    client = Client(base, _read_key(key_variable), key_variable, notify)
    api = api or named
    listing = None
    if api is None:
        api, listing = _detect(client)
    elif model is None and api != "tei":
        listing = client.find(APIS[api].list_path)
    names, owner = _read_models(listing)
    chosen = model or ("" if api == "tei" else _choose(names, base))
    extra = {"truncate": True, "input_type": side} if owner == "millpond" else {}
    return Endpoint(client, api, chosen, extra)


def _split(url: str) -> tuple[str, str | None]:
    """Return the address without the path of an API, and the API that the path names."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not the address of a server; expected http://HOST:PORT.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "The address holds a password, which other users can read from the list of processes. "
            "Leave it out, and name the variable that holds the key with --key-variable."
        )
    plain = url.rstrip("/")
    for name, api in APIS.items():
        if plain.endswith(api.embed_path):
            return plain.removesuffix(api.embed_path), name
    return plain.removesuffix("/v1"), "openai" if plain.endswith("/v1") else None


def _read_key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"The variable {variable} is not set or empty. Type: export {variable}=KEY"
        )
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"The key in {variable} holds characters that no HTTP header may hold.")
    return key


def _detect(client: Client) -> tuple[str, Any]:
    """Return the API that the server speaks, and its list of models."""
    for name, keys in (("openai", ("data",)), ("ollama", ("models",)), ("tei", ("model_id",))):
        found = client.find(APIS[name].list_path)
        if isinstance(found, dict) and any(key in found for key in keys):
            return name, found
    tried = ", ".join(api.list_path for api in APIS.values())
    raise EndpointError(
        f"{client.base}: a server answers, but none of {tried} as an embedding server does. Check "
        f"the address, or name the API with --api {', '.join(APIS)}."
    )


def _read_models(listing: Any) -> tuple[list[str], str]:
    """Return the names in a list of models as OpenAI or Ollama gives it, and the owner."""
    if not isinstance(listing, dict):
        return [], ""
    rows = listing.get("data") or listing.get("models") or []
    cards = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = [str(card.get("id") or card.get("name")) for card in cards]
    owner = str(cards[0].get("owned_by", "")) if cards else ""
    # Our server lists NAME:query and NAME:document after NAME.
    return [
        name for name in names if not (owner == "millpond" and name.rpartition(":")[0] in names)
    ], owner


def _choose(names: Sequence[str], base: str) -> str:
    if len(names) == 1:
        return names[0]
    if names:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise UsageError(
            f"{base} serves {len(names)} models: {shown}. Choose one with --remote-model NAME."
        )
    raise UsageError(f"{base} lists no models. Name the one to ask with --remote-model NAME.")
