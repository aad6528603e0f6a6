"""The weights of the papers, as constructor arguments of `Distiller`.

kd.Distiller(teacher, student, **kd.losses.mix(SoftTargets(), AttentionTransfer("conv4", "block_12")))
"""

from keras_distill import schedules


class Mix(dict):
    """Arguments of `Distiller`: `distillation_losses`, `distillation_loss_weights`, `student_loss_weight`.

    Attributes:
        scale: the papers' total divided by the Distiller's: 1 where the hard weight is below 1.
    """

    scale: float = 1.0


def mix(loss, *others, hard=None) -> Mix:
    """Return the constructor arguments that give each loss its customary weight.

    The papers minimise `hard·CE + Σ ownᵢ·lossᵢ`; Distiller minimises `s·CE + (1−s)·Σ wᵢ·lossᵢ`. With
    `hard < 1`, s = hard and the two are the same. Else s = hard / (1 + hard), and Distiller's total is the
    papers' divided by `1 + hard` (`Mix.scale`), which matters to the learning rate of plain SGD alone. A
    warm-up, which `DecoupledKD` and `ReviewKD` have, is yours to add: how long depends on the training.

    Args:
        loss: a loss, or its name.
        *others: further losses.
        hard: the weight of the hard labels; None for that of the first loss.

    Raises:
        ValueError: `hard` is negative.
    """
    from keras_distill.losses import get

    losses = [get(each) for each in (loss, *others)]
    customary = [getattr(each, "customary_weights", (1.0, 1.0)) for each in losses]
    hard = customary[0][0] if hard is None else hard
    hard = schedules.fixed("hard", hard)
    scale = 1.0 if hard < 1 else 1.0 + hard
    share = hard / scale
    arguments = Mix(
        distillation_losses=losses,
        distillation_loss_weights=[own / scale / (1 - share) for _, own in customary],
        student_loss_weight=share,
    )
    arguments.scale = scale
    return arguments
