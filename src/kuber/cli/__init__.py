"""The `kuber` command: one file per command group, loaded when `main` runs."""

import gc
import sys

from kuber.errors import KUberError

INTERRUPTED = 130


def main() -> None:
    """Run the command line; a KUberError becomes one sentence and the error's exit code."""
    from kuber.cli.app import app

    try:
        app()
    except KUberError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # skip the final collection, which takes half a second on torch's objects
