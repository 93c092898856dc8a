"""`python -m dpmrt.runtime`: the command line, for where the script `dpmrt` is not on the path."""

from dpmrt.runtime.cli import main

if __name__ == "__main__":
    main(prog_name="dpmrt")
