"""`rmctl agent`: hands over to the agent."""

import logging
import socket
import sys

from rmctl.cli.output import print_json, stdout


def join(url: str, token: str, name: str | None, data: str, as_json: bool) -> None:
    """Join, and say as which node."""
    from rmctl.agent.main import join as join_portal

    token = sys.stdin.readline().strip() if token == "-" else token
    chosen = name or socket.gethostname()
    node = join_portal(url, token, chosen, data)
    if as_json:
        print_json({"node": node, "name": chosen, "data": data})
    else:
        stdout().print(f"joined as node {node} ({chosen}); start it with: rmctl agent run --data {data}")


def run(url: str | None, data: str, datasets: list[str]) -> int:
    """Run the agent; its exit status."""
    from rmctl.agent.main import run as run_agent

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run_agent(url, data, datasets)
