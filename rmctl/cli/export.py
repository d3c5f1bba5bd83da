"""`rmctl export`: a workflow of the portal as a file."""

import sys

from rmctl.cli.failures import UsageError
from rmctl.cli.output import stderr
from rmctl.cli.session import client, tenant_of
from rmctl.client import ConfigError
from rmctl.sdk.export import FORMATS, exported


def export(name: str, form: str, version: int | None, tenant: str | None) -> None:
    """Print it; what its tasks ship stays in the portal, and the file names it."""
    if form not in FORMATS:
        raise UsageError(f"--as {form}: give one of {', '.join(FORMATS)}.")
    with client() as asked:
        found = asked.workflow(name, tenant_of(tenant))
        number = version or found["version"]
        if number is None:
            raise ConfigError(f"Workflow {found['name']} has no version.")
        definition = asked.version(int(found["id"]), int(number))["definition"]
        sys.stdout.write(exported(definition, form, asked.url))
    if definition.get("bundle"):
        note = "Its files stay in the portal: the copy names their bundle. Take that out to ship files of your own."
        stderr().print(f"note: {note}", style="yellow", soft_wrap=True)
