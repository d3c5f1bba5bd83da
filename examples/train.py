"""Training: a model of which pods fail, with checkpoints and a gate before it may be used.

A logistic regression says from what a pod asks for whether it will fail. It is fitted with numpy, which every node
agent has, to the older four fifths of the pods of a public trace (data/README.md) and judged by the newest fifth.
`fit` saves its state now and then: evicted, it goes on where it was. `judge` fails for a model that is not better
than always giving the more frequent answer.

    rmctl push examples/train.py
    rmctl trigger train --wait
    rmctl trigger train -p steps=0 --wait       # no training: stopped at the gate
"""

import csv
import gzip
import json
from pathlib import Path

from rmctl import DAG, TaskFailed, artifact, checkpoint, checkpoint_folder, param, task

CLASSES = ("BE", "Burstable", "Guaranteed", "LS")
SAVE_EVERY = 100


def table(pods):
    """Features and answers of all pods that ran, oldest first."""
    import numpy

    features, answers = [], []
    with gzip.open(Path(__file__).parent / pods, "rt", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scheduled_time"]]
    for row in sorted(rows, key=lambda row: int(row["creation_time"])):
        amounts = [float(row[name]) for name in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")]
        classes = [row["qos"] == name for name in CLASSES]
        features.append([1.0, *numpy.log1p(amounts), *classes, bool(row["gpu_spec"]), amounts[3] == 1000])
        answers.append(row["pod_phase"] == "Failed")
    return numpy.array(features), numpy.array(answers, dtype=float)


def split(count):
    """Where the newest fifth begins: what comes later must not teach what is asked about earlier."""
    return count * 4 // 5


@task(resources={"cpu": "500m", "memory": "512Mi"}, time_limit="5m")
def fit(pods, steps):
    """Weights by Newton's method with a step of a tenth, so that there is something to save on the way."""
    import numpy

    features, answers = table(pods)
    features, answers = features[: split(len(answers))], answers[: split(len(answers))]
    saved = checkpoint_folder() / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "weights": [0.0] * features.shape[1]}
    weights = numpy.array(state["weights"])
    before = state["step"]
    for step in range(before, steps):
        chances = 1 / (1 + numpy.exp(-features @ weights))
        gradient = features.T @ (answers - chances) / len(answers) - 1e-4 * weights
        curvature = (features.T * (chances * (1 - chances))) @ features / len(answers)
        weights += 0.1 * numpy.linalg.solve(curvature + 1e-4 * numpy.eye(len(weights)), gradient)
        if (step + 1) % SAVE_EVERY == 0:
            partial = saved.with_suffix(".partial")
            partial.write_text(json.dumps({"step": step + 1, "weights": weights.tolist()}))
            partial.replace(saved)
            checkpoint()
    print(f"{len(answers)} pods, {steps} steps, {before} of them done before")
    return weights.tolist()


@task(resources={"memory": "512Mi"})
def judge(pods, weights):
    """How often the model is right about pods that it has not seen; fails when that is no better than a constant."""
    import numpy

    features, answers = table(pods)
    features, unseen = features[split(len(answers)) :], answers[split(len(answers)) :]
    accuracy = float(((features @ numpy.array(weights) > 0) == unseen).mean())
    constant = float(max(unseen.mean(), 1 - unseen.mean()))
    print(f"right about {accuracy:.1%} of {len(unseen)} unseen pods; always the same answer: {constant:.1%}")
    if accuracy <= constant:
        raise TaskFailed(f"the model is right about {accuracy:.1%}, a constant about {constant:.1%}: not published")
    return {"accuracy": round(accuracy, 4), "constant": round(constant, 4), "pods": len(unseen)}


@task
def publish(weights, judged):
    """The model with what is known of it, as an artifact."""
    artifact("model.json").write_text(json.dumps({"weights": weights, **judged}, indent=1))
    return judged


with DAG(
    "train",
    description="A logistic regression on a public trace, with checkpoints and a gate.",
    params={"pods": "data/pods_default.csv.gz", "steps": 300},
    files=["data/pods_default.csv.gz"],
) as dag:
    weights = fit(pods=param("pods"), steps=param("steps"))
    publish(weights=weights, judged=judge(pods=param("pods"), weights=weights))
