"""Training: a model of which pods fail, with checkpoints and a gate before it may be used.

A linear classifier of scikit-learn says from what a pod asks for whether it will fail. It is fitted to the older four
fifths of the pods of a public trace (data/README.md) and judged by the newest fifth. `fit` saves its state now and
then: evicted, it goes on where it was. `judge` fails for a model that is not better than always giving the more
frequent answer. Both say that their node needs scikit-learn: where no node has it, the push is refused and says so.

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
LEARNS = {"require": {"packages": ["scikit-learn"]}}


def table(pods):
    """Features and answers of all pods that ran, oldest first."""
    import numpy

    features, answers = [], []
    with gzip.open(Path(__file__).parent / pods, "rt", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scheduled_time"]]
    for row in sorted(rows, key=lambda row: int(row["creation_time"])):
        amounts = [float(row[name]) for name in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")]
        classes = [row["qos"] == name for name in CLASSES]
        features.append([*numpy.log1p(amounts) / 10, *classes, bool(row["gpu_spec"]), amounts[3] == 1000])
        answers.append(row["pod_phase"] == "Failed")
    return numpy.array(features), numpy.array(answers, dtype=bool)


def split(count):
    """Where the newest fifth begins: what comes later must not teach what is asked about earlier."""
    return count * 4 // 5


@task(intent=LEARNS, resources={"cpu": "500m", "memory": "512Mi"}, time_limit="5m")
def fit(pods, steps):
    """Weights by stochastic gradient descent, in passes over all pods."""
    import joblib
    from sklearn.linear_model import SGDClassifier

    features, answers = table(pods)
    features, answers = features[: split(len(answers))], answers[: split(len(answers))]
    saved = checkpoint_folder() / "state.joblib"
    before, model = joblib.load(saved) if saved.exists() else (0, SGDClassifier(loss="log_loss", random_state=0))
    for step in range(before, steps):
        model.partial_fit(features, answers, classes=[False, True])
        if (step + 1) % SAVE_EVERY == 0:
            partial = saved.with_suffix(".partial")
            joblib.dump((step + 1, model), partial)
            partial.replace(saved)
            checkpoint()
    print(f"{len(answers)} pods, {steps} steps, {before} of them done before")
    if not steps:
        return [0.0] * (features.shape[1] + 1)
    return [*model.coef_[0].tolist(), float(model.intercept_[0])]


@task(intent=LEARNS, resources={"memory": "512Mi"})
def judge(pods, weights):
    """How often the model is right about pods that it has not seen; fails when that is no better than a constant."""
    from sklearn.metrics import accuracy_score, roc_auc_score

    features, answers = table(pods)
    features, unseen = features[split(len(answers)) :], answers[split(len(answers)) :]
    scores = features @ weights[:-1] + weights[-1]
    accuracy, ranking = accuracy_score(unseen, scores > 0), roc_auc_score(unseen, scores)
    constant = max(unseen.mean(), 1 - unseen.mean())
    print(f"right about {accuracy:.1%} of {len(unseen)} unseen pods; always the same answer: {constant:.1%}")
    print(f"a pod that fails is ranked above one that does not in {ranking:.1%} of all pairs")
    if accuracy <= constant:
        raise TaskFailed(f"the model is right about {accuracy:.1%}, a constant about {constant:.1%}: not published")
    found = {"accuracy": accuracy, "constant": constant, "ranking": ranking}
    return {name: round(float(value), 4) for name, value in found.items()} | {"pods": len(unseen)}


@task
def publish(weights, judged):
    """The model with what is known of it, as an artifact."""
    artifact("model.json").write_text(json.dumps({"weights": weights, **judged}, indent=1))
    return judged


with DAG(
    "train",
    description="A classifier of scikit-learn on a public trace, with checkpoints and a gate.",
    params={"pods": "data/pods_default.csv.gz", "steps": 300},
    files=["data/pods_default.csv.gz"],
) as dag:
    weights = fit(pods=param("pods"), steps=param("steps"))
    publish(weights=weights, judged=judge(pods=param("pods"), weights=weights))
