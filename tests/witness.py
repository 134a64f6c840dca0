# SPDX-License-Identifier: Apache-2.0
"""Single layers on ONNX Runtime: witness of the golden model's integers."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def onnx_run(operator, layer, arrays, output):
    """Run one convolution; arrays {name: array} are its inputs in order, maps [N, C, H, W]."""
    shape = layer.geometry
    node = helper.make_node(
        operator,
        list(arrays),
        ["y"],
        strides=shape.stride,
        pads=shape.padding,
        dilations=shape.dilation,
        group=shape.groups,
        kernel_shape=shape.kernel,
    )
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in arrays.items()
    ]
    session = onnx_session(node, inputs, helper.make_tensor_value_info("y", output, None))
    return session.run(None, arrays)[0].transpose(0, 2, 3, 1)


def onnx_session(node, inputs, output):
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def conv_integer(layer, x):
    """Give Σ w · a of each output as ConvInteger has it, int32 [N, Ho, Wo, M]; u8 · u8."""
    weights = layer.geometry.matrices_to_weights(layer.weights())
    channels_first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    signed = x.dtype == np.int8
    arrays = {
        "x": shift_by_128(channels_first) if signed else channels_first,
        "w": shift_by_128(weights),
        "x_zero": np.array(128 if signed else 0, dtype=np.uint8),
        "w_zero": np.array(128, dtype=np.uint8),
    }
    return onnx_run("ConvInteger", layer, arrays, TensorProto.INT32)


def shift_by_128(values):
    return (values.astype(np.int16) + 128).astype(np.uint8)
