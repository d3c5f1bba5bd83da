"""The command line of RMPortal.

Exit status: 0 done; 1 the job or run failed, or something unexpected; 2 wrong usage or a refused spec; 3 not
found or not allowed; 4 the portal cannot be reached. `rmctl run` ends with the exit status of its job.
"""

import sys
from typing import NoReturn

from rmctl.cli.app import app
from rmctl.cli.failures import report


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit status."""
    try:
        app(args=arguments, prog_name="rmctl")
    except BrokenPipeError:
        # Whoever read our output has seen enough (`rmctl list jobs | head`).
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sys.exit(report(error))
    sys.exit(0)
