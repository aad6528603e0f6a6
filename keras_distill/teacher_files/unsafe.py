"""What a file of layers brings that is not Keras: code, which is never run, and classes of its author.

    refuse_code(config, "teacher.h5")                        # a Lambda layer with its Python function inside
    refuse_unknown(config, "teacher.keras", custom_objects)  # a class that is neither given nor registered

Keras refuses a Lambda by itself; tf_keras runs one out of an `.h5` file, and imports any module named in it.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

import keras

_PACKAGES = ("keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv")
_PARTS = "activations constraints dtype_policies initializers layers losses metrics mixed_precision models"
_PARTS += " ops optimizers random regularizers src"
_BUILTINS = ("activations", "initializers", "losses", "metrics", "regularizers", "constraints")
# Functions of TensorFlow that a Keras 2 model may name as layers: those of these modules, and of `tf` itself
# those below. All others stay out: among them are some that write files or load native libraries.
_MODULES = (
    "__operators__ image linalg math nn random signal strings keras.activations keras.backend"
)
_FUNCTIONS = """
abs acos acosh add add_n angle arg_max arg_min argmax argmin argsort as_string asin asinh atan atan2 atanh
batch_to_space batch_to_space_nd betainc bincount bitcast boolean_mask broadcast_to cast ceil
clip_by_average_norm clip_by_global_norm clip_by_norm clip_by_value complex concat conj constant
convert_to_tensor cos cosh count_nonzero cross cumprod cumsum depth_to_space digamma div div_no_nan divide
dynamic_partition dynamic_stitch edit_distance einsum ensure_shape equal erf erfc exp expand_dims expm1
extract_image_patches extract_volume_patches eye fft fft2d fft3d fill floor floor_div floordiv floormod
gather gather_nd greater greater_equal identity identity_n ifft ifft2d ifft3d igamma igammac imag
invert_permutation is_finite is_inf is_nan less less_equal lgamma lin_space linspace log log1p log_sigmoid
logical_and logical_not logical_or logical_xor matmul matrix_band_part matrix_diag matrix_diag_part
matrix_set_diag matrix_transpose maximum meshgrid minimum mod multiply negative no_op norm not_equal
one_hot ones ones_like pad pow range rank real realdiv reciprocal reduce_all reduce_any reduce_join
reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum regex_replace repeat reshape
reverse reverse_sequence reverse_v2 rint roll round rsqrt saturate_cast scalar_mul scatter_nd searchsorted
segment_max segment_mean segment_min segment_prod segment_sum sequence_mask shape shape_n sigmoid sign sin
sinh size slice sort space_to_batch space_to_batch_nd space_to_depth split sqrt square squared_difference
squeeze stack stop_gradient strided_slice string_join string_split string_strip string_to_hash_bucket_fast
string_to_number substr subtract tan tanh tensor_scatter_nd_add tensor_scatter_nd_max
tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile to_double to_float
to_int32 to_int64 trace transpose truediv truncatediv truncatemod unique unique_with_counts
unravel_index unsorted_segment_max unsorted_segment_mean unsorted_segment_min unsorted_segment_prod
unsorted_segment_sqrt_n unsorted_segment_sum unstack where where_v2 zeros zeros_like zeta
"""
# Of the operations themselves, which files of TensorFlow 2.0 to 2.3 hold.
_NODES = """
Abs Add AddN AddV2 ArgMax ArgMin AvgPool BatchMatMulV2 BiasAdd BroadcastTo Cast Ceil ClipByValue ConcatV2
Conv2D Cos Cumsum DepthToSpace DepthwiseConv2dNative Einsum Elu Equal Exp ExpandDims Fill Floor FloorDiv
FloorMod GatherNd GatherV2 Greater GreaterEqual Identity LeakyRelu Less LessEqual Log Log1p LogSoftmax
LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean Min Minimum MirrorPad Mul Neg NotEqual
OneHot OnesLike Pack Pad PadV2 Pow Prod Range RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear
ResizeNearestNeighbor ReverseV2 Round Rsqrt Select SelectV2 Selu Shape Sigmoid Sign Sin Size Slice Softmax
Softplus Softsign SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice
Sub Sum Tanh Tile TopKV2 Transpose Unpack ZerosLike
"""
# Of those modules: one reads a file, and the others change the process.
_NO_OPERATIONS = re.compile(
    r"fixed_unigram_candidate_sampler|eval|print_tensor|(set|get|clear|reset)_.*"
)


def refuse_code(config: Any, file) -> None:
    """Refuse a configuration that carries code.

    Raises:
        ValueError: with the layer's name.
    """
    for entry in _entries(config):
        kind, inner = entry["class_name"], entry["config"]
        name = inner.get("name") if isinstance(inner, dict) else None
        if kind == "__lambda__" or _has_code(kind, inner):
            raise ValueError(
                f"{file} carries Python code{_of_layer(name)}, which is not run: if you trust the file, load "
                "it yourself with keras.models.load_model(..., safe_mode=False) and pass the model."
            )
        called = _called(kind, inner)
        if called and not _is_operation(called):
            raise ValueError(
                f"{file} calls tf.{called}{_of_layer(name)}, which is no part of a network: it is not run."
            )


def _has_code(kind: str, config) -> bool:
    """Whether a layer brings one of its functions along, in place of naming it: a Lambda, a wrapped cell."""
    if not isinstance(config, dict):
        return False
    if any(str(key).endswith("_type") and value == "lambda" for key, value in config.items()):
        return True
    return kind == "Lambda" and (
        isinstance(config.get("function"), list)
        or any(
            "__lambda__" in str(config.get(part)) for part in ("function", "output_shape", "mask")
        )
    )


def _of_layer(name) -> str:
    return f" (layer '{name}')" if name else ""


def _called(kind: str, config) -> str | None:
    """The function of TensorFlow that a layer of Keras 2 is made of; None for other layers."""
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(config.get("function"))
    if kind == "TensorFlowOpLayer":  # one node of a graph
        node = config.get("node_def")
        return f"raw_ops.{node.get('op') if isinstance(node, dict) else '?'}"
    if kind == "ClassMethod" and not str(config.get("cls_symbol")).endswith("Tensor"):
        return f"{config.get('cls_symbol')}.{config.get('method_name')}"
    return None


def _is_operation(function: str) -> bool:
    function = function.removeprefix("compat.v1.")
    module, _, name = function.rpartition(".")
    if module == "raw_ops":
        return name in _NODES.split()
    if not module:
        return name in _FUNCTIONS.split()
    return module in _MODULES.split() and not _NO_OPERATIONS.fullmatch(name)


def refuse_unknown(config: Any, file, custom_objects: dict | None) -> None:
    """Refuse a configuration that names a class or function outside of Keras that nobody handed over.

    Raises:
        ValueError: with its name.
    """
    for entry in _entries(config):
        module, kind = entry.get("module"), entry["class_name"]
        name = entry["config"] if kind == "function" else kind
        registered = entry.get("registered_name")
        own = registered and ">" in str(registered)
        if module == "builtins":
            own = own or not any(hasattr(getattr(keras, one), str(name)) for one in _BUILTINS)
        elif module is not None:
            own = own or not _of_keras(str(module), kind)
        if own and not _known(name, registered, custom_objects or {}):
            raise ValueError(
                f"{file} has '{name}' of {module or 'its author'}, which is not part of Keras: pass "
                f"teachers.load(..., custom_objects={{'{_key(name, registered)}': …}}), or import the "
                "module that registers it with keras.saving.register_keras_serializable."
            )


def _key(name, registered) -> str:
    """What custom_objects= calls it; a function that is not registered has "function" for that name."""
    return str(registered if ">" in str(registered) else name)


def _of_keras(module: str, kind: str) -> bool:
    if module.startswith("tensorflow.python.ops.init_ops"):  # TensorFlow's own initializers
        return kind != "function"
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    if package not in _PACKAGES or (part == "src" and kind == "function"):
        return False
    return not part or package not in ("keras", "tf_keras") or part in _PARTS.split()


def _known(name, registered, custom_objects: dict) -> bool:
    registries = [keras.saving.get_custom_objects()]
    if "tf_keras" in sys.modules:
        registries.append(sys.modules["tf_keras"].saving.get_custom_objects())
    return any(
        str(one) in known for one in (name, registered) for known in (custom_objects, *registries)
    )


def _entries(value: Any) -> Iterator[dict]:
    """All {"class_name": …, "config": …} in a configuration, at any depth."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _entries(one)
