"""Which operators phone accelerators are documented to take: a table for each, and where it comes from.

    TABLES["gpu"].documented          # frozenset of operator names
    TABLES["gpu"].source              # the page or file that lists them

Read in November 2026. These lists grow with each release, and drivers differ: what a delegate takes on
a device, only the device tells.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DelegateTable:
    """What one delegate is documented to take.

    Attributes:
        title: for people.
        source: where `documented` is written.
        documented: operator names.
        in_source: further operators that the delegate's own source takes, which its page does not name.
        source_of_rest: where `in_source` is written.
        quantized: types of quantised numbers that it is documented to take.
        unless: {operator: condition that this file may not meet}; counted as falling back.
    """

    title: str
    source: str
    documented: frozenset[str]
    in_source: frozenset[str] = frozenset()
    source_of_rest: str | None = None
    quantized: frozenset[str] = frozenset({"int4", "int8", "uint8", "int16"})
    unless: tuple[tuple[str, str], ...] = ()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GPU = _names("""
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXP FULLY_CONNECTED LOGISTIC LSTM
    MAX_POOL_2D MAXIMUM MINIMUM MUL PAD PRELU RELU RELU6 RESHAPE RESIZE_BILINEAR SOFTMAX
    STRIDED_SLICE SUB TRANSPOSE_CONV
""")
_GPU_SOURCE = _names("""
    ABS ADD_N ATAN2 BATCH_MATMUL BITCAST CAST CEIL COS CUMSUM DENSIFY DEPTH_TO_SPACE DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL FLOOR FLOOR_DIV FLOOR_MOD GATHER GELU GREATER
    GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR MEAN
    MIRROR_PAD NEG NOT_EQUAL ONE_HOT PACK PADV2 POW QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX
    REDUCE_MIN REDUCE_PROD RELU_N1_TO_1 RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RIGHT_SHIFT ROUND RSQRT
    SELECT SELECT_V2 SIGN SIN SLICE SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CBRT STABLEHLO_CLAMP STABLEHLO_REMAINDER
    STABLEHLO_SHIFT_LEFT SUM TANH TILE TOPK_V2 TRANSPOSE
""")
_NNAPI = _names("""
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BIDIRECTIONAL_SEQUENCE_LSTM CAST CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D
    DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FULLY_CONNECTED GATHER
    GREATER GREATER_EQUAL HARD_SWISH HASHTABLE_LOOKUP IF L2_NORMALIZATION L2_POOL_2D LESS LESS_EQUAL
    LOCAL_RESPONSE_NORMALIZATION LOG LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2
    POW PRELU QUANTIZE RANK REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RNN RSQRT SELECT SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SQRT SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TILE TOPK_V2
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN WHILE
""")
_QUALCOMM = _names("""
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CEIL CONCATENATION CONV_2D
    CONV_3D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU
    EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GATHER_ND GELU GREATER
    GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL
    PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN RELU RELU_0_TO_1
    RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT
    SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQRT SQUARE SQUARED_DIFFERENCE
    STABLEHLO_COMPOSITE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK
""")
_MEDIATEK = _names("""
    ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE DIV
    FULLY_CONNECTED GELU GREATER HARD_SWISH L2_NORMALIZATION LEAKY_RELU LOGISTIC MAX_POOL_2D MAXIMUM
    MEAN MINIMUM MUL PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPLIT SQRT SQUARED_DIFFERENCE STABLEHLO_COMPOSITE
    STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNPACK
""")
_COREML = _names("""
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED HARD_SWISH LOGISTIC
    MAX_POOL_2D MIRROR_PAD MUL PAD PADV2 RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR SOFTMAX TANH
    TRANSPOSE_CONV
""")

TABLES = {
    "gpu": DelegateTable(
        "GPU delegate (Android, iOS)",
        "TensorFlow Lite documentation, 'TensorFlow Lite on GPU' (lite/g3doc/performance/gpu_advanced.md)",
        _GPU,
        _GPU_SOURCE,
        "LiteRT source, tflite/tools/versioning/gpu_compatibility.cc",
        quantized=frozenset({"int8", "uint8"}),
    ),
    "nnapi": DelegateTable(
        "NNAPI (Android 8.1 to 14; deprecated since 15)",
        "Android NDK operation codes (NeuralNetworksTypes.h, feature level 8), as the NNAPI page asks",
        _NNAPI,
        quantized=frozenset({"int8", "uint8"}),
    ),
    "qualcomm": DelegateTable(
        "Qualcomm NPU (LiteRT compiler plugin)",
        "LiteRT, litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md",
        _QUALCOMM,
    ),
    "mediatek": DelegateTable(
        "MediaTek NPU (LiteRT compiler plugin)",
        "LiteRT, litert/vendors/mediatek/compiler/compiler_plugin.cc, list of supported operators",
        _MEDIATEK,
    ),
    "coreml": DelegateTable(
        "Core ML delegate (iOS)",
        "LiteRT, tflite/delegates/coreml/README.md",
        _COREML,
        quantized=frozenset(),
        unless=(("RESHAPE", "only where the app sets coreMLVersion to 2"),),
    ),
}
