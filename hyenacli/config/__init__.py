"""The settings of each verb as one frozen dataclass: its fields are flags, YAML keys and Python API.

A field's type, flag, help and bounds stand once, in its annotation; the verb's help is the class docstring.
"""

from hyenacli.config.embed import EmbedConfig
from hyenacli.config.evaluate import EvaluateConfig
from hyenacli.config.finetune import FinetuneConfig
from hyenacli.config.predict import PredictConfig
from hyenacli.config.pretrain import PretrainConfig
from hyenacli.config.score_variants import ScoreVariantsConfig
from hyenacli.config.species import SpeciesEvaluateConfig, SpeciesPredictConfig, SpeciesTrainConfig
from hyenacli.config.tools import DoctorConfig, MergeConfig

__all__ = [
    "DoctorConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "MergeConfig",
    "PredictConfig",
    "PretrainConfig",
    "ScoreVariantsConfig",
    "SpeciesEvaluateConfig",
    "SpeciesPredictConfig",
    "SpeciesTrainConfig",
]
