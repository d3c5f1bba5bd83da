"""`./portal bench openb`: placing the public Alibaba GPU trace, beside what others reach, in one process.

    ./portal bench openb [--data DIR] [--variant NAME] [--stream S[,S…]] [--policy NAME[,NAME…]] [--all]

DIR holds the scorer (`score.py` with its data); by default ../shared/data/openb. `--variant` is a file of pods of the
scorer, or one of ours, drawn from `default` with other weights: `shares`, `cpu`, `multi`, `models`; `half` has shares
and multi-GPU pods with equal demand and no whole single cards, `whole` no shares, `parts` nothing but shares; `change`
is `multi` until half of the GPUs have arrived and `shares` then. Prints one JSON: the scorer's metrics of each policy
and stream, and the means.
"""

import argparse
import importlib.util
import json
import random
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from .common import finish, machine
from .openb_peers import FGD, BestFit, Random
from .openb_policy import Policy

PORTAL = False  # Read by the launcher: this one needs no portal.
POLICIES = {"rmportal": Policy, "fgd": FGD, "bestfit": BestFit, "random": Random}
STREAMS = ",".join(f"artifact:{number}" for number in range(42, 47))
PODS = 8152
SEED = 7
OURS = ("shares", "cpu", "multi", "models", "half", "whole", "parts", "change")
# Part of the cluster's GPUs that arrives before the mix changes.
CHANGE = 0.5


def load_scorer(folder: Path) -> Any:
    """The scorer as a module."""
    specification = importlib.util.spec_from_file_location("openb_score", folder / "score.py")
    if specification is None or specification.loader is None or not (folder / "score.py").is_file():
        raise SystemExit(f"{folder} has no score.py: name the folder of the trace with --data.")
    module = importlib.util.module_from_spec(specification)
    sys.modules["openb_score"] = module
    specification.loader.exec_module(module)
    return module


def weight(variant: str, pod: Any) -> float:
    """How often a pod of `default` stands in one of our variants."""
    share = pod.num_gpu == 1 and pod.gpu_milli < 1000
    heavy = pod.cpu / max(1, pod.num_gpu) >= 11_000
    weights = {
        "shares": 4.0 if share else 1.0,
        "cpu": 3.0 if heavy else 1.0,
        "multi": 15.0 if pod.num_gpu > 1 else 1.0,
        "whole": float(not share),
        "parts": float(share or not pod.num_gpu),
        "half": 3.9 if pod.num_gpu > 1 else float(share or not pod.num_gpu),
    }
    return weights.get(variant, 1.0)


def drawn(scorer: Any, variant: str) -> list[Any]:
    """One of our variants: pods of `default` drawn by weight; in `models` a third of the GPU pods name two models."""
    source = random.Random(SEED)
    pods = list(scorer.load_pods("default"))
    chosen = source.choices(pods, [weight(variant, pod) for pod in pods], k=PODS)
    models = sorted({row["model"] for row in scorer.load_nodes()})
    made = []
    for number, pod in enumerate(chosen):
        spec = frozenset(source.sample(models, 2)) if variant == "models" and source.random() < 1 / 3 else pod.gpu_spec
        made.append(pod._replace(uid=number, name=f"{number:05d}", gpu_spec=spec if pod.num_gpu else frozenset()))
    return made


def use_variant(scorer: Any, variant: str) -> None:
    """Let the scorer load one of our variants."""
    if variant != "change":
        pods = drawn(scorer, variant)
        scorer.load_pods = lambda variant="default": pods
        return
    first, then, arrivals = drawn(scorer, "multi"), drawn(scorer, "shares"), scorer.arrivals
    pods = [pod._replace(uid=number, name=f"{number:05d}") for number, pod in enumerate([*first, *then])]

    def changing(_: Any, stream: str, ratio: float, capacity: int, nodes: int, name: str) -> tuple[list[int], Any]:
        """The beginning of a stream of the one, then a stream of the other, until the ratio."""
        order, rank = arrivals(first, stream, ratio, capacity, nodes, name)
        later, _ = arrivals(then, stream, ratio, capacity, nodes, name)
        made, arrived = [], 0
        for source, offset, end in ((order, 0, CHANGE), (later, len(first), ratio)):
            for number in source:
                pod = pods[number + offset]
                if arrived + pod.num_gpu * pod.gpu_milli > end * capacity:
                    break
                arrived += pod.num_gpu * pod.gpu_milli
                made.append(number + offset)
        return made, rank

    scorer.load_pods, scorer.arrivals = (lambda variant="default": pods), changing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data" / "openb")
    parser.add_argument("--variant", default="default")
    parser.add_argument("--stream", default=STREAMS)
    parser.add_argument("--policy", default=",".join(POLICIES))
    parser.add_argument("--all", action="store_true", help="the scorer's metrics of every stream, too")
    options = parser.parse_args()
    scorer = load_scorer(options.data)
    if options.variant in OURS:
        use_variant(scorer, options.variant)
        streams = [stream.replace("artifact:", "py:") for stream in options.stream.split(",")]
    else:
        streams = options.stream.split(",")
    result: dict[str, Any] = {"benchmark": "openb", "machine": machine(), "variant": options.variant, "policies": {}}
    for name in options.policy.split(","):
        runs = [scorer.run(POLICIES[name], options.variant, stream, 1.3, True, None) for stream in streams]
        wrong = [run["error"] for run in runs if not run["valid"]]
        if wrong:
            raise SystemExit(f"{name}: {wrong[0]}")
        result["policies"][name] = {
            "gpu_alloc_pct_at_130": round(mean(run["gpu_alloc_pct_final"] for run in runs), 3),
            "by_stream": {run["stream"]: run["gpu_alloc_pct_final"] for run in runs},
            "refused_feasible": sum(run["refused_feasible"] for run in runs),
            "failed_pods": round(mean(run["failed_pods"] for run in runs), 1),
            "decisions_per_s": round(mean(run["decisions_per_s"] for run in runs), 1),
            **({"runs": runs} if options.all else {}),
        }
        print(json.dumps({name: result["policies"][name]["gpu_alloc_pct_at_130"]}), file=sys.stderr)
    finish(result)


if __name__ == "__main__":
    main()
