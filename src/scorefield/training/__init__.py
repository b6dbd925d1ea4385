"""Training: one trainer for every field and objective."""

from scorefield.errors import CheckpointError, Interrupted, TrainingError
from scorefield.training.checkpoint import Checkpoint, Weights, load_weights, read_weights
from scorefield.training.classifier import (
    TrainedClassifier,
    TrainedNoiseClassifier,
    classifier_features,
    read_classifier,
    read_noise_classifier,
    store_noise_classifier,
    train_classifier,
    train_noise_classifier,
)
from scorefield.training.ema import EMA
from scorefield.training.fitting import fit
from scorefield.training.record import Row
from scorefield.training.settings import Optim, TrainSettings, multiplier
from scorefield.training.trainer import DrawFor, Fit, Trainer

__all__ = [
    "fit",
    "Fit",
    "Trainer",
    "DrawFor",
    "Optim",
    "TrainSettings",
    "EMA",
    "multiplier",
    "Checkpoint",
    "Weights",
    "read_weights",
    "load_weights",
    "Row",
    "train_classifier",
    "read_classifier",
    "classifier_features",
    "TrainedClassifier",
    "train_noise_classifier",
    "read_noise_classifier",
    "store_noise_classifier",
    "TrainedNoiseClassifier",
    "TrainingError",
    "CheckpointError",
    "Interrupted",
]
