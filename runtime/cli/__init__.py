"""The command line: a group whose commands are found through the entry points `dpmrt.commands`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from dpmrt import __version__
from dpmrt.errors import DpmrtError, MissingExtraError
from dpmrt.runtime.interrupt import was_interrupted

_CANCELLED = 130
#: said, on stderr, of a folder without a manifest
UNCHECKED = "no dpmrt.json: inputs read from the graph, files not checked"


class CommandGroup(click.Group):
    """Commands that are imported when they are called, and errors that are printed without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command that an installed package offers."""
        return sorted(_entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; one whose packages are missing becomes a command that says so."""
        entry = _entry_points().get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except ImportError as error:
            if was_interrupted(error):
                raise KeyboardInterrupt from error
            return _missing(cmd_name, entry, error)
        return command if isinstance(command, click.Command) else None

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; 0 is success, 1 a request that failed, 2 a wrong command line, 130 a Ctrl-C."""
        run = functools.partial(super().main, args, prog_name, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            code: object = run()
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _quit("cancelled", _CANCELLED)
        except DpmrtError as error:
            _quit(f"error: {error}", 1)
        except MemoryError as error:
            _quit(f"error: not enough memory\n  got:      {error}\n  fix:      ask for fewer samples at once", 1)
        except BrokenPipeError:
            _close_stdout()
            sys.exit(1)
        except OSError as error:
            _close_stdout()
            _quit(f"error: reading or writing failed\n  got:      {error}", 1)
        except ImportError as error:
            if was_interrupted(error):
                _quit("cancelled", _CANCELLED)
            raise
        sys.exit(code if isinstance(code, int) else 0)


@functools.cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="dpmrt.commands")}


def _missing(name: str, entry: EntryPoint, error: ImportError) -> click.Command:
    extra = "export" if entry.module.startswith("dpmrt.export") else None
    fix = f"pip install 'dpmrt[{extra}]'" if extra else f"reinstall what provides {entry.module}"

    def answer() -> NoReturn:
        raise MissingExtraError(
            f"`dpmrt {name}` needs a package that is not installed", got=error, fix=fix
        ) from error

    params: list[click.Parameter] = [click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)]
    return click.Command(
        name,
        callback=lambda arguments: answer(),
        params=params,
        short_help=f"(needs {fix})",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def _quit(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def _close_stdout() -> None:
    """Keep the interpreter from complaining, at its end, about a stdout that takes nothing more."""
    import os

    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command(
    "dpmrt", cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="dpmrt")
def main() -> None:
    """Sample from diffusion networks without PyTorch, and bring them here from PyTorch.

    \b
    Examples:
      dpmrt sample digits -o digits.png --batch 16
      dpmrt inspect digits
    """
