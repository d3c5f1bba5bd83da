"""Approval: a run that stops until a person has looked, and goes the way that the answer says.

`measure` works out what the new version would change, the question `ask` shows that and holds no process while it
waits. `roll_out` gets the share of the machines that the person filled in. A refusal skips everything behind it, and
after a day without an answer counts as one. Who answered what and when stays with the question.

    rmctl push examples/release.py
    rmctl trigger release
    rmctl approve                               # what waits for you, and its number
    rmctl approve 1 approve --value percent=10
"""

from rmctl import DAG, approval, artifact, param, task


@task
def measure(old, new):
    """How much faster the new version is, by the medians of what was measured."""
    from statistics import median

    before, after = median(old), median(new)
    return {"before_ms": before, "after_ms": after, "faster": f"{1 - after / before:.0%}"}


@task
def roll_out(machines, answer):
    """The machines that get the new version first: so many percent, at least one."""
    count = max(1, len(machines) * answer["values"]["percent"] // 100)
    said = f"released on {count} of {len(machines)} machines, by the word of {answer['by']}"
    artifact("release.txt").write_text("\n".join([said, *machines[:count]]) + "\n")
    print(said)
    return machines[:count]


with DAG(
    "release",
    description="Asks a person before a new version goes out.",
    params={
        "old": {"type": "array", "items": {"type": "number"}, "default": [41, 40, 44, 39, 40]},
        "new": {"type": "array", "items": {"type": "number"}, "default": [30, 31, 33, 29, 30]},
        "machines": {"type": "array", "items": {"type": "string"}, "default": [f"web-{n}" for n in range(1, 21)]},
    },
) as dag:
    asked = approval(
        "ask",
        "Release the new version?",
        text="Median answer times of both versions are shown.",
        form={
            "type": "object",
            "properties": {"percent": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}},
        },
        show={"measured": measure(old=param("old"), new=param("new"))},
        timeout="1d",
        default="reject",
    )
    roll_out(machines=param("machines"), answer=asked)
