"""Bases of the losses on inner layers: pairs of layers, weights of positions, connectors.

class MeanDifference(FeatureLoss):
    def of_pair(self, index, teacher, student, weights):
        return weights.mean(ops.mean(ops.abs(student - teacher), axis=-1))
"""

import warnings
from typing import Any

import keras
from keras import ops

from keras_distill.connectors import Connector, connect, takes_mask
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.shapes import same_positions
from keras_distill.losses.weights import full_mask, paired, same_number


class FeatureLoss(DistillationLoss):
    """Base of the losses that compare inner layers one by one.

    Args:
        teacher_layer_name: path of a layer of the teacher, a list of them, or "auto" in a Distiller: layers
            at equal spatial stages, see `suggest_pairs`. None: the outputs (logits).
        student_layer_name: the same for the student.
        output: for networks with several outputs, the one it reads; where layers are named, the one whose
            sample weights and `example_weighting` count.
        name: the metric's name.
    """

    reads = "logits"
    # Whether it compares the positions of an example with each other, so that flat features tell nothing.
    compares_positions = False
    # Whether "auto" means the last pair of layers alone.
    reads_one_layer = False

    def __init__(self, teacher_layer_name=None, student_layer_name=None, output=None, name=None):
        if teacher_layer_name == "auto" and student_layer_name is None:
            student_layer_name = "auto"
        if (teacher_layer_name is None) != (student_layer_name is None):
            raise ValueError(
                f"teacher_layer_name={teacher_layer_name!r} and student_layer_name={student_layer_name!r}: "
                "name layers of both networks, or of none for their outputs, or 'auto'."
            )
        if (teacher_layer_name == "auto") != (student_layer_name == "auto"):
            raise ValueError(
                f"teacher_layer_name={teacher_layer_name!r} and student_layer_name={student_layer_name!r}: "
                "'auto' chooses the layers of both networks; name none of them."
            )
        lists = [
            one if isinstance(one, list | tuple) else [one]
            for one in (teacher_layer_name, student_layer_name)
        ]
        same_number(*lists)
        super().__init__(name, output, teacher_layer_name, student_layer_name)

    def compute_loss(
        self, teacher_outputs, student_outputs, labels=None, sample_weight=None, mask=None
    ):
        """Return the sum over the pairs of layers, a scalar.

        Args:
            teacher_outputs: features, or a list with those of each layer.
            student_outputs: the same of the student.
            labels: not used.
            sample_weight: `(batch,)`, `(batch, positions...)` or None; see `Weights`.
            mask: `(batch, positions...)`, True where there is something; a list for several layers.

        Raises:
            ValueError: features that cannot be compared; the sentence names both shapes.
        """
        layers = paired(teacher_outputs, student_outputs, mask, sample_weight)
        self.build_for(layers)
        total = 0.0
        for i, (teacher, student, weights) in enumerate(layers):
            if self.pools_before(i):
                teacher, student = same_positions(teacher, student, weights.mask)
                student = self.connected(i, student, weights)
            else:
                student = self.connected(i, student, weights)
                teacher, student = same_positions(teacher, student, weights.mask)
            if self.compares_positions and len(student.shape) < 3:
                raise ValueError(
                    f"{type(self).__name__} compares the positions of a map or sequence, and the features "
                    f"of shape {tuple(student.shape)} have none: name an earlier layer, or use Hint."
                )
            total = total + self.of_pair(i, teacher, student, weights.at(student))
        return total

    def build_for(self, layers) -> None:
        """Make the weights, if it has some, for what `paired` returned."""

    def pools_before(self, index: int) -> bool:
        """Whether features of pair `index` are brought to the same positions before `connected`."""
        return True

    def connected(self, index: int, student, weights):
        """Return the student's features of pair `index` as they are compared."""
        return student

    def of_pair(self, index: int, teacher, student, weights):
        """Return the loss of one pair of layers, a scalar.

        Args:
            index: of the pair.
            teacher, student: features with the same positions.
            weights: their `Weights`.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
            "output": self.output_name,
            "name": self.name,
        }


class TrainableLoss(FeatureLoss, keras.layers.Layer):
    """Base of the feature losses with weights of their own, which are trained with the student.

    They are layers too, so that every Keras model that holds them trains and saves them. The weights are made
    when the shapes are known: by `Distiller` at once, else in the first `compute_loss`.
    """

    # Whether its weights might learn what the student should, so that many of them are worth a warning.
    learns_for_student = True

    def __init__(self, teacher_layer_name=None, student_layer_name=None, output=None, name=None):
        keras.layers.Layer.__init__(self, name=name, dtype="float32")
        FeatureLoss.__init__(self, teacher_layer_name, student_layer_name, output, name)

    def build(self, teacher_shapes, student_shapes):
        """Make the weights for a list with the shape of each layer."""
        raise NotImplementedError

    def look_at(self, teacher_layers: list[keras.layers.Layer]) -> None:
        """Called by a Distiller before `build`, with the teacher's layers that are read."""

    def build_for(self, layers) -> None:
        """Make the weights for what `paired` returned, unless they are there."""
        if not self.built:
            self.build(*([tuple(pair[i].shape) for pair in layers] for i in (0, 1)))

    def get_config(self):
        """Return the arguments of the constructor."""
        return FeatureLoss.get_config(self)


class ConnectedLoss(TrainableLoss):
    """Base of the feature losses that compare channel by channel, with a connector where widths differ.

    Args:
        connector: "auto", None (the widths must be equal), a `keras.layers.Layer`, or a list with one of
            these for each pair of layers; see `connectors`.
        teacher_layer_name, student_layer_name, output, name: see `FeatureLoss`.

    Attributes:
        connectors: the layers in use, one for each pair, once they are made.
    """

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        connector="auto",
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.connector = connector
        self.connectors: list[keras.layers.Layer] = []

    def build(self, teacher_shapes, student_shapes):
        """Make the connectors for a list with the shape of each layer."""
        given = self.connector if isinstance(self.connector, list | tuple) else [self.connector]
        if len(given) == 1 and not isinstance(given[0], keras.layers.Layer):
            given = list(given) * len(student_shapes)
        if len(given) != len(student_shapes):
            raise ValueError(
                f"{type(self).__name__} has {len(given)} connectors for {len(student_shapes)} pairs of "
                "layers: pass a list with one for each, or 'auto'."
            )
        activations = self.activations()
        if not isinstance(activations, list | tuple):
            activations = [activations] * len(student_shapes)
        self.connectors = [
            connect(one, tuple(teacher), tuple(student), activation)
            for one, teacher, student, activation in zip(
                given, teacher_shapes, student_shapes, activations, strict=True
            )
        ]

    def activations(self):
        """Return the activation of the connectors that "auto" makes, or a list with one for each pair."""
        return None

    def pools_before(self, index):
        """Not before a connector of the user's, which may change the number of positions itself."""
        return isinstance(self.connectors[index], Connector | keras.layers.Identity)

    def connected(self, index, student, weights):
        """Return the student's features after the connector; what does not count is not in its statistics."""
        connector = self.connectors[index]
        kept = weights.at(student).kept
        if kept is None or not takes_mask(connector):
            found = connector(student, training=True)
        else:
            with warnings.catch_warnings():
                # A Sequential hands the mask to its layers, and not on.
                warnings.filterwarnings("ignore", ".*does not support masking")
                found = connector(student, training=True, mask=full_mask(kept, student))
        # In mixed precision a layer of the user's answers in half.
        return ops.cast(found, "float32")

    def get_config(self):
        """Return the arguments of the constructor."""
        connector = keras.saving.serialize_keras_object(self.connector)
        return {"connector": connector, **super().get_config()}
