"""The `kuber` command: one file per command group, loaded when `main` runs."""

import gc
import sys

from kuber.cli.terminal import say_error
from kuber.errors import KUberError

INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error on the way becomes one sentence and its exit code."""
    from kuber.cli.app import app

    try:
        app()
    except KUberError as error:
        say_error(f"error: {error.message}")
        sys.exit(error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        say_error(f"error: A file cannot be read or written: {error.strerror or error}{where}.")
        sys.exit(KUberError.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # skip the final collection, which takes half a second on torch's objects
