"""Model families from Hugging Face checkpoints: `load_model` reads one, the engine calls its layers."""

from dualpath_worker.models.config import ModelConfig
from dualpath_worker.models.decoder import Attend, Model
from dualpath_worker.models.load import load_model
from dualpath_worker.models.source import resolve_model

__all__ = ["Attend", "Model", "ModelConfig", "load_model", "resolve_model"]
