"""From a teacher and a student to the int8 file that costs no accuracy."""

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export import chain

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def student():
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.DepthwiseConv2D(3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.Conv2D(6, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="logits"),
        ]
    )


def run(net, photos, examples, path, network=None, **how):
    data = (examples, photos[1])
    how = {"epochs": 4, "loss": LOSS, "fit": {"batch_size": 16, "verbose": 0}} | how
    optimizer = keras.optimizers.Adam(0.02)
    return te.distill_and_export(
        net, network or student(), *data, path, validation_data=data, optimizer=optimizer, **how
    )


def test_where_quantising_after_training_costs_nothing_it_stays_with_that(
    net, photos, examples, tmp_path
):
    result = run(
        net,
        photos,
        examples,
        tmp_path / "s.tflite",
        acceptable_drop=1.0,
        labels=["r", "g", "b"],
        normalization=(127.5, 127.5),
    )
    assert result.chosen == chain.AFTER
    assert "nothing for quantisation-aware training to win" in str(result)
    assert [c.name for c in result.candidates] == [chain.AFTER]
    assert list(result.history) == ["float"]
    assert result.exported.path == tmp_path / "s.tflite"
    assert te.read_metadata(result.exported.path).labels == ("r", "g", "b")
    assert [f.name for f in tmp_path.iterdir()] == ["s.tflite"]


def test_else_it_trains_on_with_rounding_and_says_what_it_chose(
    net, photos, examples, tmp_path, monkeypatch
):
    # Whatever the file after training is worth, it is not good enough here.
    monkeypatch.setattr(
        chain._Files, "worse", lambda self, one: 0.0 if one.name == chain.AWARE else 0.1
    )
    result = run(
        net,
        photos,
        examples,
        tmp_path / "s.tflite",
        epochs=2,
        quantization_aware_epochs=4,
        acceptable_drop=0.0,
    )
    assert [c.name for c in result.candidates][:2] == [chain.AFTER, chain.AWARE]
    assert list(result.history) == ["float", "aware", "frozen"]
    assert [len(result.history[name]["loss"]) for name in ("aware", "frozen")] == [3, 1]
    assert isinstance(result.aware, te.QuantizeAware)
    frozen = [
        layer for layer in result.aware.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert [layer.trainable for layer in frozen] == [False]
    if result.chosen == chain.AWARE:
        found = te.verify(result.aware, result.exported, (examples, photos[1]))
        assert found.agreement == 1.0


def test_where_no_int8_file_is_as_good_the_float_one_is_kept(
    net, photos, examples, tmp_path, monkeypatch
):
    monkeypatch.setattr(chain._Files, "worse", lambda self, one: 0.2)
    result = run(
        net, photos, examples, tmp_path / "s.tflite", epochs=1, quantization_aware_epochs=0
    )
    assert result.chosen == chain.FLOAT
    assert "loses more than 0.5 %" in result.why
    assert result.exported.quantization == "float16"


def test_it_goes_on_where_it_was_killed(net, photos, examples, tmp_path):
    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    def begin(folder, *callbacks):
        fit = {"batch_size": 16, "verbose": 0, "callbacks": list(callbacks), "shuffle": False}
        return run(
            net, photos, examples, tmp_path / f"{folder}.tflite", folder=tmp_path / folder, fit=fit
        )

    with pytest.raises(Killed):
        begin("killed", Kill())
    assert not (tmp_path / "killed.tflite").exists()
    resumed, whole = begin("killed"), begin("whole")
    assert resumed.history["float"]["loss"] == pytest.approx(whole.history["float"]["loss"])
    for one, other in zip(resumed.student.weights, whole.student.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="epochs was 4, is now 3"):
        run(
            net, photos, examples, tmp_path / "x.tflite", folder=tmp_path / "killed", epochs=3,
            fit={"batch_size": 16, "verbose": 0, "shuffle": False},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"quantization": "int8"}, "chooses quantization by itself"),
        ({"acceptable_drop": -0.1}, "acceptable_drop=-0.1"),
    ],
)
def test_what_cannot_be_done_is_said(how, sentence, net, photos, examples, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        run(net, photos, examples, tmp_path / "s.tflite", **how)
