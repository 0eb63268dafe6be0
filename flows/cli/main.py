"""The command line. Heavy imports are inside the commands: `--help` and `check` import no torch."""

import gc
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from flows.cli import runs, services
from flows.cli.output import INTERRUPTED, console, stop
from flows.stack.environment import settle, unknown_settings
from pipeline.errors import PressrunError
from pipeline.masking import mask

COLLECT_AFTER = 100_000
"""New objects before a search for garbage: imports, most of a short command, leave none."""

app = typer.Typer(
    name="pressrun",
    help="Bulk image generation: one outcome per row, one receipt per image.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pressrun {version('pressrun')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Bulk image generation: one outcome per row, one receipt per image."""


app.add_typer(runs.app)
app.add_typer(services.app)


def main() -> None:
    """The `pressrun` command: errors of ours are one clear line, not a traceback."""
    gc.set_threshold(COLLECT_AFTER)
    settle()
    for warning in unknown_settings():
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    try:
        app()
    except PressrunError as error:
        stop(str(error), 1)
    except Exception:  # noqa: BLE001 - a fault of ours: the traceback, but without secrets
        sys.stderr.write(mask(traceback.format_exc()))
        sys.exit(1)
    except KeyboardInterrupt:
        stop(
            "Interrupted. What is done is kept; the same command goes on with the rest.",
            INTERRUPTED,
        )


if __name__ == "__main__":
    main()
