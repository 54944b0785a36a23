"""The settings in the help of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class SettingsCommand(TyperCommand):
    """A command whose help ends with all settings: name, meaning and default."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's, which typer keeps to itself
        """Write the examples, then the settings."""
        from skewless.contract.settings import SETTINGS_FILE, Settings

        super().format_epilog(ctx, formatter)
        with formatter.section(f"Settings, in {SETTINGS_FILE} or as SKEWLESS_NAME"):
            formatter.write_dl([(name, _meaning(field)) for name, field in Settings.model_fields.items()])


def _meaning(field: FieldInfo) -> str:
    default = "none" if field.default is None else field.default
    return f"{field.description}  [default: {default}]"
