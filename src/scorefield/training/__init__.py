"""Training: one trainer for every field and objective."""

from scorefield.errors import CheckpointError as CheckpointError
from scorefield.errors import Interrupted as Interrupted
from scorefield.errors import TrainingError as TrainingError
from scorefield.training.checkpoint import Checkpoint as Checkpoint
from scorefield.training.checkpoint import Weights as Weights
from scorefield.training.checkpoint import load_weights as load_weights
from scorefield.training.checkpoint import read_weights as read_weights
from scorefield.training.classifier import TrainedClassifier as TrainedClassifier
from scorefield.training.classifier import classifier_features as classifier_features
from scorefield.training.classifier import read_classifier as read_classifier
from scorefield.training.classifier import train_classifier as train_classifier
from scorefield.training.ema import EMA as EMA
from scorefield.training.fitting import fit as fit
from scorefield.training.noise_classifier import TrainedNoiseClassifier as TrainedNoiseClassifier
from scorefield.training.noise_classifier import read_noise_classifier as read_noise_classifier
from scorefield.training.noise_classifier import store_noise_classifier as store_noise_classifier
from scorefield.training.noise_classifier import train_noise_classifier as train_noise_classifier
from scorefield.training.record import Row as Row
from scorefield.training.schedule import multiplier as multiplier
from scorefield.training.settings import Optim as Optim
from scorefield.training.settings import TrainSettings as TrainSettings
from scorefield.training.trainer import DrawFor as DrawFor
from scorefield.training.trainer import Fit as Fit
from scorefield.training.trainer import Trainer as Trainer

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
