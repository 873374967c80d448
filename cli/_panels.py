"""Help that lists the options of one topic under a heading of their own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["PanelCommand"]


class PanelCommand(TyperCommand):
    """A command whose plain help honours ``rich_help_panel``, which Typer does in boxes only."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options, and then each panel in the order of its first option."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            heading = getattr(parameter, "rich_help_panel", None) or usual
            sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
