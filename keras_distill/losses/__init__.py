"""What is taught: each loss is a plain function in `keras.ops` and a thin serialisable class.

SoftTargets(temperature=4.0)                          # or "soft_targets", wherever a loss is taken
AttentionTransfer("conv4_block6_out", "block_12_add")  # reads inner layers, by name
mix(SoftTargets(), AttentionTransfer("auto"))          # constructor arguments with the customary weights
"""

import difflib

import keras

from keras_distill.losses.adversarial import Adversarial
from keras_distill.losses.base import DistillationLoss, mean_over_examples, snake_case
from keras_distill.losses.contrastive import ContrastiveDistillation, contrastive_distillation
from keras_distill.losses.correlation import DIST, dist
from keras_distill.losses.customary import Mix, mix
from keras_distill.losses.feature import (
    AttentionTransfer,
    ChannelWise,
    CosineFeatures,
    Hint,
    NeuronSelectivity,
    attention_transfer,
    channel_wise,
    cosine_features,
    hint,
    neuron_selectivity,
)
from keras_distill.losses.feature_loss import FeatureLoss, TrainableLoss
from keras_distill.losses.flow import FSP, fsp
from keras_distill.losses.logit_loss import LogitLoss, standardized
from keras_distill.losses.relation import (
    PKT,
    CorrelationCongruence,
    RelationLoss,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
    correlation_congruence,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from keras_distill.losses.response import (
    LogitMSE,
    SoftTargets,
    VirtualTeacher,
    logit_mse,
    soft_targets,
    virtual_teacher,
)
from keras_distill.losses.review import ReviewKD, hierarchical_context
from keras_distill.losses.target_class import (
    DecoupledKD,
    NormalizedKD,
    decoupled_kd,
    normalized_kd,
)
from keras_distill.losses.variational import VariationalInformation, variational_information

RESPONSES = (SoftTargets, DecoupledKD, DIST, NormalizedKD, LogitMSE, VirtualTeacher)
FEATURES = (
    Hint,
    AttentionTransfer,
    NeuronSelectivity,
    VariationalInformation,
    ReviewKD,
    ChannelWise,
    CosineFeatures,
)
RELATIONS = (
    RKDDistance,
    RKDAngle,
    SimilarityPreserving,
    CorrelationCongruence,
    PKT,
    FSP,
    ContrastiveDistillation,
)

ADVERSARIES = (Adversarial,)

__all__ = [
    "ADVERSARIES",
    "DIST",
    "FEATURES",
    "FSP",
    "PKT",
    "RELATIONS",
    "RESPONSES",
    "Adversarial",
    "AttentionTransfer",
    "ChannelWise",
    "ContrastiveDistillation",
    "CorrelationCongruence",
    "CosineFeatures",
    "DecoupledKD",
    "DistillationLoss",
    "FeatureLoss",
    "Hint",
    "LogitLoss",
    "LogitMSE",
    "Mix",
    "NeuronSelectivity",
    "NormalizedKD",
    "RKDAngle",
    "RKDDistance",
    "RelationLoss",
    "ReviewKD",
    "SimilarityPreserving",
    "SoftTargets",
    "TrainableLoss",
    "VariationalInformation",
    "VirtualTeacher",
    "attention_transfer",
    "channel_wise",
    "contrastive_distillation",
    "correlation_congruence",
    "cosine_features",
    "decoupled_kd",
    "dist",
    "fsp",
    "get",
    "hierarchical_context",
    "hint",
    "logit_mse",
    "mean_over_examples",
    "mix",
    "neuron_selectivity",
    "normalized_kd",
    "pkt",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "soft_targets",
    "standardized",
    "variational_information",
    "virtual_teacher",
]

_BY_NAME = {
    snake_case(loss.__name__): loss for loss in (*RESPONSES, *FEATURES, *RELATIONS, *ADVERSARIES)
}


def get(identifier):
    """Return the loss that `identifier` means: a loss as it is, or one by name with its defaults.

    Raises:
        ValueError: no loss has this name; the sentence lists those that exist.
    """
    if isinstance(identifier, keras.distillation.DistillationLoss):
        return identifier
    if isinstance(identifier, str):
        if identifier in _BY_NAME:
            return _BY_NAME[identifier]()
        near = difflib.get_close_matches(identifier, _BY_NAME, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"There is no distillation loss '{identifier}'; there are: {', '.join(_BY_NAME)}.{hint}"
        )
    raise ValueError(
        "A distillation loss is an object of keras_distill.losses or keras.distillation, or a name, got "
        + (
            f"the class {identifier.__name__}: call it, {identifier.__name__}(...)."
            if isinstance(identifier, type)
            else f"{type(identifier).__name__}."
        )
    )
