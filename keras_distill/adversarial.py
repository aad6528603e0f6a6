"""A discriminator in the training, with an optimizer of its own.

distiller = kd.AdversarialDistiller(teacher, student, "soft_targets")
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = distiller.fit(x, y, epochs=30).history["discriminator_accuracy"]
"""

from typing import Any

import keras

from keras_distill import losses
from keras_distill.distiller import Distiller
from keras_distill.optimizers import PerGroup


@keras.saving.register_keras_serializable(package="keras_distill")
class AdversarialDistiller(Distiller):
    """A Distiller with a discriminator that tells the student from the teacher; see `losses.Adversarial`.

    The discriminator is trained in the same step, by an optimizer of its own. `discriminator_accuracy` in the
    history says how it stands: near 0.5 the student deceives it, near 1 it has won and teaches little.

    Use it where the student's answers are near the teacher's one by one and yet differ as a whole; and
    measure it against the same losses without it.

    Args:
        teacher, student: as for `Distiller`.
        distillation_losses, distillation_loss_weights: those beside the adversary; None for it alone.
        student_loss_weight: as for `Distiller`.
        adversarial_weight: of the adversary, a number or a schedule (`schedules.warm_up(10)`).
        teacher_layer_name, student_layer_name: inner layers of equal channels that it judges; None for the
            logits.
        discriminator: a layer from `(batch, channels)` to one logit; None for two layers of 128.
        name, **kwargs: as for `Distiller`.

    Raises:
        ValueError: an `Adversarial` among the losses; or what `Distiller` refuses.
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses="soft_targets",
        distillation_loss_weights=None,
        student_loss_weight=0.5,
        adversarial_weight=0.1,
        teacher_layer_name=None,
        student_layer_name=None,
        discriminator=None,
        name="adversarial_distiller",
        **kwargs,
    ):
        given, weights = _listed(distillation_losses), distillation_loss_weights
        weights = [1.0] * len(given) if weights is None else _listed(weights)
        if any(isinstance(losses.get(one), losses.Adversarial) for one in given):
            raise ValueError(
                "AdversarialDistiller makes its Adversarial itself: leave it out of distillation_losses, and "
                "give adversarial_weight=, teacher_layer_name=, student_layer_name= and discriminator=."
            )
        adversary = losses.Adversarial(
            teacher_layer_name, student_layer_name, discriminator=discriminator
        )
        given, weights = [*given, adversary], [*weights, adversarial_weight]
        super().__init__(teacher, student, given, weights, student_loss_weight, name=name, **kwargs)

    @property
    def adversary(self) -> losses.Adversarial:
        """The loss that holds the discriminator."""
        return next(one for one in self.distillation_losses if isinstance(one, losses.Adversarial))

    def compile(self, optimizer="adam", *args, discriminator_optimizer="adam", **kwargs):
        """Configure the training, as `Distiller.compile` does.

        Args:
            optimizer: of the student; callbacks change its learning rate alone.
            *args, **kwargs: as for `Distiller.compile`.
            discriminator_optimizer: of the discriminator.

        Raises:
            ValueError: the networks have no weights yet, or both optimizers are one object.
        """
        if not self.adversary.built or not self.student.built:
            raise ValueError(
                "The discriminator waits for the shapes of what it judges: call teacher and student on a "
                "batch before making the AdversarialDistiller."
            )
        own: list[Any] = self.adversary.discriminator.trainable_variables
        ids = {id(variable) for variable in own}
        rest = [one for one in self.trainable_variables if id(one) not in ids]
        both = PerGroup([optimizer, discriminator_optimizer], leading=1)
        both.groups([rest, own])
        super().compile(both, *args, **kwargs)
        self.compiled_with(
            {
                **self.compile_arguments(),
                "optimizer": optimizer,
                "discriminator_optimizer": discriminator_optimizer,
            }
        )

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        config, adversary = super().get_config(), self.adversary.get_config()
        *config["distillation_losses"], _ = config["distillation_losses"]
        *config["distillation_loss_weights"], weight = config["distillation_loss_weights"]
        own = ("teacher_layer_name", "student_layer_name", "discriminator")
        return {
            **config,
            "adversarial_weight": weight,
            **{name: adversary[name] for name in own},
        }

    @classmethod
    def from_config(cls, config):
        """Return the distiller that `get_config` describes."""
        config = dict(config)
        for key in ("adversarial_weight", "discriminator"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return super().from_config(config)


def _listed(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
