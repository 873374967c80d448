"""``millpond conform``: whether two models give the same vectors, and if not, why."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.commands.embed import RoleOption
from cli.console import message, print_json, print_line, print_table, progress
from cli.models import load_encoder
from cli.options import DeviceOption, JsonOption, TrustOption, argument, option
from retrieval.errors import FailureError, UsageError

if TYPE_CHECKING:
    from embedder.conform.findings import Conformity, KindScores, Other

EXIT_DIFFERENT = 1


ApiName = Literal["openai", "ollama", "tei"]
"""What --api accepts; a test holds it equal to ``embedder.conform.endpoint.APIS``."""


def conform(
    model: Annotated[str, argument("MODEL", "The model to compare with.")],
    against: Annotated[
        str,
        option(
            "URL|MODEL",
            "The address of an embedding server (OpenAI's API, TEI's or Ollama's), or another "
            "model.",
            "--against",
        ),
    ],
    api: Annotated[
        ApiName | None,
        typer.Option("--api", help="What the server speaks.", show_default="asked of the server"),
    ] = None,
    remote_model: Annotated[
        str | None,
        option(
            "NAME",
            "What the server calls the model.",
            "--remote-model",
            shown="the only one it lists",
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        option("NAME", "The environment variable that holds the server's key.", "--key-variable"),
    ] = None,
    role: RoleOption = "document",
    least: Annotated[
        float, option("NUMBER", "From which cosine on vectors are the same.", "--least-cosine")
    ] = 0.9999,
    device: DeviceOption = None,
    trust_remote_code: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Find out why the same model gives other vectors elsewhere.

    Embeds 40 texts with both: short and long ones, many languages, emoji, special tokens, blanks,
    an empty one. Where the vectors differ, the usual reasons are tried one after another: another
    pooling, EOS or prompt, a chat template, lower case, shorter texts, half precision, no
    normalisation, fewer dimensions, padding. Exits with 0 if they are the same, 1 if they differ,
    2 if they could not be compared.

    \b
    Examples:
      millpond conform millpond-135m --against http://127.0.0.1:8400
      millpond conform ./my-model --against http://gpu:8000/v1 --remote-model my-model --as query
      millpond conform ./my-model --against https://api.example.com/v1 --key-variable EXAMPLE_KEY
    """
    from embedder.conform.endpoint import is_url, open_endpoint
    from embedder.conform.examine import conform as examine
    from embedder.conform.local import LoadedModel, take_apart

    load = partial(load_encoder, device=device, trust_remote_code=trust_remote_code)
    other: Other | None = None
    try:
        if is_url(against):  # asked before a model loads
            other = open_endpoint(
                against,
                api=api,
                model=remote_model,
                key_variable=key_variable,
                side=role,
                notify=message,
            )
        elif api or remote_model or key_variable:
            raise UsageError(
                f"--api, --remote-model and --key-variable go with an address, and {against!r} is "
                f"not one. Leave them out, or type --against http://HOST:PORT."
            )
        local = take_apart(load(model))
        other = other or LoadedModel(load(against), role)
        with progress("Comparing", 40, "texts") as advance:
            found = examine(local, other, side=role, least=least, progress=advance, notify=message)
    except FailureError as error:  # 1 would say that the vectors differ
        raise UsageError(str(error)) from error
    if json:
        print_json(asdict(found))
    else:
        _show(found)
    if not found.same:
        raise typer.Exit(EXIT_DIFFERENT)


def _show(found: Conformity) -> None:
    verdict = "The same" if found.same else "Different"
    print_line(f"{verdict}: {found.model} and {found.against}")
    print_line()
    header = ("texts", "", "least cosine", "median", "length here", "there")
    print_table([header, *(_row(kind) for kind in found.kinds)])
    if found.dimension_here != found.dimension_there:
        print_line(f"dimension: {found.dimension_here} here, {found.dimension_there} there")
    if found.findings:
        print_line()
        print_line("Why:")
    for finding in found.findings:
        gain = ""
        if finding.before is not None and finding.after is not None:
            gain = f" (least cosine {finding.before:.4f} without that, {finding.after:.4f} with it)"
        print_line(f"- {finding.text}{gain}")
    for note in found.notes:
        message(note)
    if found.unexplained and not found.same:
        message(f"{found.unexplained} texts still differ when all of that is taken into account.")


def _row(kind: KindScores) -> tuple[str, ...]:
    count = str(kind.texts)
    if kind.refused:
        count += f", {kind.refused} refused"
    numbers = (kind.least, kind.median, kind.length_here, kind.length_there)
    shown = ("-" if number is None else f"{number:.4f}" for number in numbers)
    return (kind.kind, count, *shown)
