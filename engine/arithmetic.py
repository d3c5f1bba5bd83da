"""The arithmetic of quota line by line, so that people can check it."""

from engine.amounts import amount_text
from engine.quota import FlavorResource, QuotaTree


def arithmetic(tree: QuotaTree, node: int, fr: FlavorResource, amount: int) -> list[dict[str, object]]:
    """The arithmetic line by line, from the root down to the node, for people.

    The last line tells whether `amount` fits and, if not, what bounds it.
    """
    resource = fr[1]
    lines: list[dict[str, object]] = []
    for current in reversed(tree.path(node)):
        limit = tree.nodes[current].limits.get(fr)
        available = tree.available(current, fr)
        have, used = (amount_text(resource, value(current, fr)) for value in (tree.subtree, tree.usage))
        lines.append(
            {
                "node": tree.nodes[current].name,
                "nominal": limit.nominal if limit else 0,
                "borrowing_limit": limit.borrowing_limit if limit else None,
                "lending_limit": limit.lending_limit if limit else None,
                "subtree": tree.subtree(current, fr),
                "kept": tree.kept(current, fr),
                "usage": tree.usage(current, fr),
                "available": available,
                "potential": tree.potential(current, fr),
                "text": f"{tree.nodes[current].name}: quota {have}, in use {used}, "
                f"available {amount_text(resource, available)}.",
            }
        )
    shortage = tree.fits(node, {fr: amount})
    fitting = f"{amount_text(resource, amount)} of flavor {fr[0]} fits."
    lines.append(
        {
            "node": tree.nodes[node].name,
            "requested": amount,
            "fits": shortage is None,
            "limiting": shortage.limiting if shortage else None,
            "limit": shortage.limit if shortage else None,
            "text": shortage.text() if shortage else fitting,
        }
    )
    return lines
