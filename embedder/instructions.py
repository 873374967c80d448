"""Puts an instruction into the query template of a model: what ``--instruction`` does.

The result is a name with ``query_prompt="..."``, so that manifests, fingerprints and workers keep
it as they keep any prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from embedder.models.foreign.files import read_model_json
from embedder.models.manifest import read_manifest
from embedder.models.names import (
    PREFIX,
    find_path,
    find_saved_model,
    split_name,
    split_options,
    write_value,
)
from embedder.models.published import LIBRARY_SETTINGS, resolve_name
from embedder.models.sentence_transformers.load import find_place, needs_sentence_transformers
from retrieval.errors import UsageError
from retrieval.protocols import Notify, silent

DEFAULT_TEMPLATE = "Instruct: {instruction}\nQuery: "
"""Of a decoder that states no other one: e5-mistral's (arXiv 2401.00368)."""

_GAP = "{instruction}"
_FORMS = (
    re.compile(r"(?P<head>\s*Instruct:\s*)(?P<said>\S.*?)(?P<tail>\s*\n\s*Query:\s*)", re.DOTALL),
    re.compile(r"(?P<head><instruct>)(?P<said>.+?)(?P<tail>\n<query>)", re.DOTALL),
    re.compile(r"(?P<head>.*<\|user\|>\n)(?P<said>.+?)(?P<tail>\n<\|embed\|>\n)", re.DOTALL),
    re.compile(r"(?P<head>task: )(?P<said>[^|]+?)(?P<tail> \| query: )"),
)
"""Prompts with an instruction as e5-mistral, Qwen3-Embedding and gte-Qwen2 have them, then those of
bge-en-icl, GritLM and embeddinggemma."""
_BARE_GRITLM = "<|embed|>\n"
"""GritLM's prompt without an instruction."""


def find_template(prompts: Iterable[str]) -> str | None:
    """Return the first prompt that holds an instruction, ``{instruction}`` in its place, else None.

    ``{text}`` at its end is left out: a prompt goes before the text.
    """
    listed = [prompt.removesuffix("{text}") for prompt in prompts]
    for prompt in listed:
        for form in _FORMS:
            if found := form.fullmatch(prompt):
                return f"{found['head']}{_GAP}{found['tail']}"
    return f"<|user|>\n{_GAP}\n{_BARE_GRITLM}" if _BARE_GRITLM in listed else None


def add_instruction(model: str, instruction: str, notify: Notify = silent) -> str:
    """Return the name of a model with the query prompt that ``fill_instruction`` gives."""
    return f"{model},query_prompt={write_value(fill_instruction(model, instruction, notify))}"


def fill_instruction(
    model: str, instruction: str, notify: Notify = silent, before: Iterable[str] = ()
) -> str:
    """Return the query prompt that an instruction gives a model.

    The model's own template is filled where a prompt of its files has one; another decoder gets
    ``DEFAULT_TEMPLATE``, and one line says so.

    Parameters
    ----------
    model : as ``load_encoder`` takes it.
    instruction : what the queries ask for, such as "Given a web search query, retrieve passages".
    before : prompts that the model had, whose template goes before those of its files.

    Raises
    ------
    UsageError : the instruction is empty or a whole template, the name has a query prompt of its
        own, or the model is an encoder whose files have no template.
    MillpondError : the name or the files of the model cannot be read.
    """
    said = check_instruction(instruction)
    plain, written = split_name(model)
    if any(name == "query_prompt" for name, _ in split_options(written)):
        raise UsageError(
            f"The model {model!r} names a query_prompt, and there is an instruction too; expected "
            f"one of the two. Leave query_prompt out of the name, or the instruction."
        )
    template = find_template(before) or find_template(_read_prompts(model, notify))
    if template is None:
        if reason := _why_no_default(plain):
            raise UsageError(
                f"{plain} has no template for instructions in its files, and {reason}. Leave the "
                f"instruction out; if the authors describe a template, name the whole prompt: "
                f"--model '{plain},query_prompt=\"Instruct: ...\\nQuery: \"'."
            )
        template = DEFAULT_TEMPLATE
        notify(
            f"Warning: {plain} names no template for instructions; used as for other decoders: "
            f"{template!r}"
        )
    prompt = template.replace(_GAP, said)
    notify(f"Query prompt: {prompt!r}")
    return prompt


def replace_instruction(model: str, instruction: str, notify: Notify = silent) -> str:
    """Return ``add_instruction``'s name for a model whose name may have a query prompt already."""
    plain, written = split_name(model)
    kept = "".join(
        f",{name}={write_value(value)}"
        for name, value in split_options(written)
        if name != "query_prompt"
    )
    before = [value for name, value in split_options(written) if name == "query_prompt"]
    prompt = fill_instruction(plain + kept, instruction, notify, before)
    return f"{plain}{kept},query_prompt={write_value(prompt)}"


def check_instruction(instruction: str) -> str:
    """Return the instruction without blanks around it.

    Raises
    ------
    UsageError : it is empty, or a whole template.
    """
    said = instruction.strip()
    if not said:
        raise UsageError(
            'The instruction is empty; expected what the queries ask for, such as "Given a web '
            'search query, retrieve relevant passages".'
        )
    whole = any(form.match(said) for form in _FORMS) or said.startswith("Instruct:")
    if whole or "{text}" in said or _GAP in said:
        raise UsageError(
            f"The instruction {said!r} is a whole template; expected the instruction alone, which "
            f"goes into the model's own template. For another template type "
            f"--model 'NAME,query_prompt=\"...\"'."
        )
    return said


def _read_prompts(model: str, notify: Notify) -> list[str]:
    """Return the prompts of a model's files, that of queries first."""
    saved = find_saved_model(model)
    if saved is not None:
        return [read_manifest(saved.folder).spec.query_prompt]
    place, revision = _find_files(model, notify)
    if place is None:
        return []
    settings = read_model_json(place, LIBRARY_SETTINGS, revision)
    prompts: Any = settings.get("prompts") if isinstance(settings, Mapping) else None
    if not isinstance(prompts, Mapping):
        return []
    texts = {name: text for name, text in prompts.items() if isinstance(text, str)}
    return [texts.pop("query", ""), *texts.values()]


def _find_files(model: str, notify: Notify) -> tuple[str | None, str | None]:
    """Return the folder or hub id of a model that is not ours, and its revision or commit."""
    if model.startswith(PREFIX):
        return find_place(model)
    named = resolve_name(model, notify)
    found = find_path(named.spec.base)
    return str(found or named.spec.base), named.commit


def _why_no_default(plain: str) -> str:
    """Return why a model gets no usual template; "" for a decoder."""
    if find_saved_model(plain) is not None:
        return ""
    place, revision = _find_files(plain, silent)
    reason = needs_sentence_transformers(place, revision) if place else ""
    if "chat template" in reason or "adapter" in reason:
        return ""
    return reason
