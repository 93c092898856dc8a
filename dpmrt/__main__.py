"""`python -m dpmrt`: the command line, where the script `dpmrt` is not on the PATH."""

from __future__ import annotations

from dpmrt.runtime.__main__ import main

if __name__ == "__main__":
    main()
