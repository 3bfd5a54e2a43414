"""Training sets of posed photos with depth, in the layouts that DUSt3R's pre-processing leaves, and a user's own."""

from unposed.train.datasets.base import PairDataset, TrainingView

__all__ = ["PairDataset", "TrainingView"]
