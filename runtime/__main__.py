"""`python -m dpmrt.runtime`, and what the script `dpmrt` calls: the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it; a Ctrl-C is answered in one line from the first moment on."""
    try:
        from dpmrt.runtime.cli import main as command
    except KeyboardInterrupt:
        print("\ncancelled", file=sys.stderr)
        sys.exit(130)
    command(prog_name="dpmrt")


if __name__ == "__main__":
    main()
