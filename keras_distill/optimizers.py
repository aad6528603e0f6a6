"""Several optimizers in one training: each for its own part of the weights.

optimizer = PerGroup([adam_of_peer_0, adam_of_peer_1])
optimizer.groups([peer_0.trainable_variables, peer_1.trainable_variables])
"""

import keras


@keras.saving.register_keras_serializable(package="keras_distill")
class PerGroup(keras.optimizers.Optimizer):
    """An optimizer that is made of others, each for a group of the weights.

    Its learning rate is that of the first, and setting it (as callbacks do) sets that of the first `leading`.

    Args:
        optimizers: what `compile` takes, one for each group; all different objects.
        leading: how many of them follow the learning rate; None for all.

    Raises:
        ValueError: one of them is there twice.
    """

    def __init__(self, optimizers, leading: int | None = None, name="per_group"):
        super().__init__(learning_rate=0.0, name=name)
        self.optimizers = [keras.optimizers.get(one) for one in optimizers]
        if len({id(one) for one in self.optimizers}) < len(self.optimizers):
            raise ValueError("Each group of weights needs an optimizer of its own: give copies.")
        self.leading = leading
        self._of_variable: dict[int, int] = {}

    def groups(self, groups) -> None:
        """Say which weights are whose: a list of variables for each optimizer."""
        self._of_variable = {
            id(variable): number for number, group in enumerate(groups) for variable in group
        }

    def _split(self, variables, values=None) -> list[list]:
        """The variables of each group, or the values that stand for them."""
        found: list[list] = [[] for _ in self.optimizers]
        for variable, value in zip(variables, values or variables, strict=True):
            found[self._of_variable[id(variable)]].append(value)
        return found

    def build(self, variables):
        """Make the variables of each."""
        for optimizer, group in zip(self.optimizers, self._split(variables), strict=True):
            optimizer.build(group)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        """Let each update its group."""
        variables = list(trainable_variables or self._trainable_variables)
        if not self.built:
            self.build(variables)
        parts = zip(
            self.optimizers,
            self._split(variables, list(grads)),
            self._split(variables),
            strict=True,
        )
        for optimizer, gradients, group in parts:
            if group:
                optimizer.apply(gradients, group)
        self._iterations.assign_add(1)

    def finalize_variable_values(self, var_list):
        """Let each end its training: one with `use_ema` sets its weights to their average."""
        for optimizer, group in zip(self.optimizers, self._split(var_list), strict=True):
            if group:
                optimizer.finalize_variable_values(group)

    @property
    def variables(self):
        """Those of all, for saving."""
        return self._variables + [v for one in self.optimizers for v in one.variables]

    @property
    def learning_rate(self):
        """The first one's."""
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        for optimizer in self.optimizers[: self.leading]:
            optimizer.learning_rate = learning_rate

    def get_config(self):
        """Return the arguments of the constructor, serialised."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizers": [serialize(one) for one in self.optimizers],
            "leading": self.leading,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Return the optimizer that `get_config` describes."""
        deserialize = keras.saving.deserialize_keras_object
        optimizers = [deserialize(one, custom_objects) for one in config["optimizers"]]
        return cls(**{**config, "optimizers": optimizers})
