"""The training step on TensorFlow."""

import collections
import contextlib
import itertools
import re
import warnings

import keras
import tensorflow as tf

from keras_distill import finite
from keras_distill.layer_tree import all_built
from keras_distill.symbolic import symbolically


def train_step(model, data):
    """Targets outside the gradient, one forward pass of the student, one update; see `training`."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    targets = model.targets(x, y)
    statistics = [(v, v.value.read_value()) for v in model.changed_by_forward()]
    with tf.GradientTape() as tape:
        answer = model.forward(x, training=True)
        loss = model.mix(x, y, sample_weight, answer, targets)
        scaled_loss = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    checks: list[tf.Tensor] = []
    if variables:
        gradients = tape.gradient(scaled_loss, variables)
        seen = (x, y, sample_weight, answer, targets)
        checks = _guarded(model, loss, gradients, statistics, *seen)
        with tf.control_dependencies(checks):
            gradients = [one if one is None else tf.identity(one) for one in gradients]
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    else:
        warnings.warn("The student has no trainable weights: nothing is learned.", stacklevel=2)
    with tf.control_dependencies(checks):
        model.after_step(x, answer)
    return model.compute_metrics(x, y, answer.outputs, sample_weight=sample_weight)


def _guarded(model, loss, gradients, statistics, x, y, sample_weight, answer, targets):
    """What must be computed before the student changes; see `finite`."""
    # Neither XLA nor replicas run Python: there `fit` looks at the end of the epoch.
    if model.jit_compile or replicas() > 1:
        return []
    rate = tf.cast(model.optimizer.learning_rate, tf.float32)
    evidence = {
        "learning rate": rate,
        "inputs": x,
        "sample weights": sample_weight,
        "labels": y,
        "teacher": _seen(targets),
        "student": _seen(answer),
    }
    tensors = {
        name: [leaf for leaf in keras.tree.flatten(value) if isinstance(leaf, tf.Tensor)]
        for name, value in evidence.items()
    }

    def undo():  # BatchNormalization has taken the bad batch into its averages
        for variable, value in statistics:
            variable.assign(value)

    def weights():
        return [tf.reduce_sum(v.value) for v in model.trainable_variables]

    def finite_update():
        # In mixed precision gradients overflow now and then, which the optimizer looks after.
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        parts = [] if scaled else [getattr(g, "values", g) for g in gradients if g is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in [rate, *parts]])

    # A ReLU makes 0 of NaN, so that the loss may hide what the gradients show. To wait for all of them in
    # every step costs a tenth of its time: it is done where the inputs are not finite. Their sum tells.
    sums = [tf.cast(tf.reduce_sum(x), tf.float32) for x in tensors["inputs"] if x.dtype.is_floating]
    trusted = tf.reduce_all(tf.math.is_finite([rate, *sums]))
    step = model.optimizer.iterations
    return [finite.guard(loss, trusted, finite_update, step, tensors, undo, weights)]


def _seen(answer):
    """Outputs and inner layers of an `Answer`."""
    return [getattr(answer, "outputs", answer), getattr(answer, "inner", None)]


def building(model, train_function):
    """Make the variables of the optimizer and of the metrics before the first call of `train_function`.

    TensorFlow traces a function that makes variables a second time, and for a deep network that is a
    third of the time until its first step is done.
    """
    done = False

    def call(iterator):
        nonlocal done
        if not done and all_built(model) and model.distribute_strategy.num_replicas_in_sync == 1:
            if model.trainable_variables and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            _build_metrics(model, iterator)
        done = True
        return train_function(iterator)

    return call


def _build_metrics(model, iterator):
    """Build what `compile` made of `metrics`, and of `loss` if there are several outputs, where the shapes of
    labels and outputs are known."""
    outputs = model.output_spec()
    if outputs is None or not isinstance(iterator, tf.data.Iterator):
        return
    _, y, _ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
    leaves = keras.tree.flatten(y)
    known = all(isinstance(leaf, tf.TensorSpec) and leaf.shape.rank for leaf in leaves)
    if y is None or not known:
        return
    y = keras.tree.map_structure(lambda s: keras.KerasTensor(s.shape, s.dtype.name), y)

    def measured(specs):
        if model.student_loss_weight > 0:
            model.hard(*specs, None)
        return model.compute_metrics(None, *specs)

    if keras.tree.is_nested(outputs):
        symbolically(measured, (y, outputs))
        return
    for metric in model.metrics:
        if metric.name == "compile_metrics" and not metric.built:
            metric.build(y, outputs)


def call_numpy_flat(function, inputs, specs):
    """Run `function` through `tf.numpy_function`; errors it raises stop the training."""

    def remembering(*arrays):
        try:
            return function(*arrays)
        except BaseException as error:  # KeyboardInterrupt too
            _raised.append((next(_numbers), error))
            raise

    dtypes = [tf.as_dtype(dtype) for _, dtype in specs]
    # Outside of a graph, one answer comes back without its list.
    answers = tf.nest.flatten(tf.numpy_function(remembering, inputs, dtypes))
    for answer, (shape, _) in zip(answers, specs, strict=True):
        answer.set_shape(shape)
    return answers


# TensorFlow hands on the text of an exception only.
_raised: collections.deque[tuple[int, BaseException]] = collections.deque(maxlen=8)
_numbers = itertools.count()  # what comes later has a larger one


_REQUIRED = re.compile(r"<keras_distill: (.+?)>")


def required(tensor, condition, sentence):
    """The tensor, after an assertion whose sentence `plain_errors` finds."""
    check = tf.debugging.Assert(condition, [f"<keras_distill: {sentence}>"])
    with tf.control_dependencies([check]):
        return tf.identity(tensor)


@contextlib.contextmanager
def plain_errors():
    """Within it, what `call_numpy_flat` and `required` found wrong leaves as a plain exception."""
    begun = next(_numbers)
    try:
        yield
    except Exception as error:
        # Nothing that an earlier training raised: "0", of a KeyError(0), is a part of most other texts. Of
        # what came since, the text tells whose it is: another training may be running in another thread.
        text = f"{error} {type(error)}"
        since = [one for number, one in list(_raised) if number > begun]
        own = [one for one in since if (str(one) or type(one).__name__) in text]
        if own:
            raise own[-1] from None
        if sentence := _REQUIRED.search(str(error)):
            raise ValueError(sentence[1]) from None
        label = re.search(r"Received a label value of (-?\d+) .* \[0, (\d+)\)", str(error))
        if isinstance(error, tf.errors.InvalidArgumentError) and label:
            raise ValueError(finite.wrong_label(*map(int, label.groups()))) from None
        raise


def gradient_of_input(function, x):
    """The slope of `function(x)`, one number, at the tensor `x`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def read_rows(variable, indices):
    """The rows, by a gather from the variable itself."""
    return variable.value.sparse_read(indices)


def write_rows(variable, indices, rows) -> None:
    """Write the rows in place."""
    variable.value.scatter_update(tf.IndexedSlices(tf.cast(rows, variable.dtype), indices))


def replicas() -> int:
    """Return the number of replicas of the current `tf.distribute` strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def usable(tensor) -> bool:
    """Return whether `tensor` is a value, or of the graph that is being made or one around it."""
    if not tf.is_symbolic_tensor(tensor):
        return True
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None and graph is not tensor.graph:
        graph = getattr(graph, "outer_graph", None)
    return graph is not None
