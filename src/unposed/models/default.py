"""Which model to take when the user does not say: the offline one that its card shows to be better."""

import json
from importlib.resources import files

OFFLINE = ("mini", "classic")
MEASURE = "auc@30"


def choose_default() -> tuple[str, str]:
    """Name of the better offline model and the reason, from the results that ship with the weights.

    ``weights/card.json`` holds, for each offline model, the pose AUC@30 of whole reconstructions on photo sets that
    were used for no choice (the same table as ``docs/models/mini.md``); their mean decides.
    """
    results = json.loads((files("unposed") / "weights" / "card.json").read_text())["results"]
    means = {name: _mean([row[MEASURE] for row in results[name].values()]) for name in OFFLINE if name in results}
    best = max(means, key=lambda name: means[name])
    others = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items() if name != best)
    return best, f"mean AUC@30 on real photo sets {means[best]:.2f}" + (f"; {others}" if others else "")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
