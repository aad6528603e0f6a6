"""How a TensorFlow graph ends: in a softmax, a sigmoid, or a layer without activation.

graph_ends(tf.saved_model.load(folder).signatures["serving_default"])      # [Head("softmax")]
"""

from keras_distill.activations import UNKNOWN, Head

_PASS = ("Identity", "IdentityN", "Cast", "StopGradient", "Squeeze")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_ENDS = {
    "Softmax": Head("softmax"),
    "Sigmoid": Head("sigmoid"),
    **dict.fromkeys(
        ("BiasAdd", "MatMul", "BatchMatMulV2", "Conv2D", "Einsum", "LogSoftmax"), Head()
    ),
}


def graph_ends(function) -> list[Head]:
    """Return a `Head` for each output of a concrete function, in `tf.nest` order."""
    graph = function.graph.as_graph_def()
    library = {one.signature.name: one for one in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    return [_end(tensor.name, nodes, library) for tensor in function.outputs]


def _end(name: str, nodes: dict, library: dict) -> Head:
    """Follow the tensor `name` upwards until something is known of it."""
    node = nodes.get(name.split(":")[0])
    if node is None:  # an argument of the function
        return UNKNOWN
    if node.op in _ENDS:
        return _ENDS[node.op]
    if node.op in _PASS:
        return _end(_input(node, _number(name) if node.op == "IdentityN" else 0), nodes, library)
    if node.op in ("Add", "AddV2"):  # of a bias, perhaps
        added = [_end(one, nodes, library) for one in node.input[:2]]
        return Head() if Head() in added else UNKNOWN
    if node.op in _CALLS and node.attr["f"].func.name in library:
        inner = library[node.attr["f"].func.name]
        result = inner.ret[inner.signature.output_arg[_number(name)].name]
        return _end(result, {one.name: one for one in inner.node_def}, library)
    return UNKNOWN


def _input(node, number: int) -> str:
    return node.input[number].lstrip("^")


def _number(name: str) -> int:
    """Which output: "call:1" in a graph, "call:output:1" in a function of it, "call" for the first."""
    last = name.split(":")[-1]
    return int(last) if ":" in name and last.isdigit() else 0
