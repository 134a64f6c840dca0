# SPDX-License-Identifier: Apache-2.0
"""Small ONNX graphs, and what ONNX Runtime computes of them."""

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Graph:
    """Writes a graph node by node; tensors are t0, t1 …, constants c0, c1 …"""

    def __init__(self, rng, shape=(1, 3, 6, 6), *, kind=TensorProto.FLOAT, batch="N"):
        self.rng = rng
        self.nodes, self.constants = [], []
        #: Shapes of tensors, without the batch, where this class knows them.
        self.shapes = {"x": shape[1:]}
        dims = [batch or shape[0], *shape[1:]]
        self.input = helper.make_tensor_value_info("x", kind, dims)

    def add(self, kind, *inputs, outputs=1, name=None, **attributes):
        name = name or f"n{len(self.nodes)}"
        made = [f"t{len(self.nodes)}" + "'" * number for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        return made[0]

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def random(self, *shape, scale=1.0):
        return self.constant(scale * self.rng.standard_normal(shape))

    def conv(self, source, filters, channels, kernel=(1, 1), *, groups=1, bias=True, **attributes):
        taps = channels // groups * kernel[0] * kernel[1]
        inputs = [self.random(filters, channels // groups, *kernel, scale=taps**-0.5)]
        inputs += [self.random(filters, scale=0.3)] if bias else []
        return self.add("Conv", source, *inputs, group=groups, **attributes)

    def norm(self, source, channels):
        mean = self.random(channels, scale=0.2)
        variance = self.constant(self.rng.uniform(0.5, 2, channels))
        return self.add(
            "BatchNormalization",
            source,
            self.constant(self.rng.uniform(0.5, 1.5, channels)),
            self.random(channels, scale=0.2),
            mean,
            variance,
        )

    def model(self, *outputs, opset=OPSET, kind=TensorProto.FLOAT):
        infos = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "small", [self.input], infos, self.constants)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        for info in model.graph.output:
            info.type.tensor_type.shape.SetInParent()  # must be there, even if nothing is known
        return model

    def save(self, path, *outputs, opset=OPSET):
        onnx.save(self.model(*outputs, opset=opset), path)
        return path


def runtime(model, x):
    """Give the outputs of ONNX Runtime for a batch of 1 at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    each = [session.run(None, {"x": sample[None].astype(np.float32)}) for sample in x]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


class Random:
    """Grows a random graph of supported operators, channels first; ``graph`` is what it wrote."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        size = tuple(int(side) for side in self.rng.integers(4, 9, 2))
        self.shape = (int(self.rng.choice([1, 2, 4])), *size)
        self.graph = Graph(self.rng, (1, *self.shape))
        self.tensor = "x"

    def whole(self, steps):
        """Give the model after some random steps and a linear end, and its input shape."""
        start = self.shape
        kinds = ("conv", "conv", "norm", "relu", "affine", "pool", "residual", "joined", "padded")
        for _ in range(steps):
            getattr(self, "_" + str(self.rng.choice(kinds)))()
        self._end()
        return self.graph.model(self.tensor), start

    def _convolved(self, source, channels, filters, groups=1):
        kernel = tuple(int(side) for side in self.rng.integers(1, 4, 2))
        dilation = [int(step) for step in self.rng.integers(1, 3, 2)]
        extent = [(side - 1) * step + 1 for side, step in zip(kernel, dilation, strict=True)]
        stride = [int(step) for step in self.rng.integers(1, 3, 2)]
        pads = [int(self.rng.integers(0, extent[axis % 2])) for axis in range(4)]
        options = {"strides": stride, "dilations": dilation}
        sides = self.shape[1:]
        if self.rng.random() < 0.3:
            options = {
                "strides": stride,
                "auto_pad": str(self.rng.choice(["SAME_UPPER", "SAME_LOWER"])),
            }
            out = [-(-side // step) for side, step in zip(sides, stride, strict=True)]
        else:
            for axis in (0, 1):  # a kernel that does not fit is a 1×1 one's padding too much
                pads[axis] += max(0, extent[axis] - sides[axis] - pads[axis] - pads[axis + 2])
            options["pads"] = pads
            out = [(sides[a] + pads[a] + pads[a + 2] - extent[a]) // stride[a] + 1 for a in (0, 1)]
        bias = bool(self.rng.integers(2))
        made = self.graph.conv(
            source, filters, channels, kernel, groups=groups, bias=bias, **options
        )
        return made, (filters, *out)

    def _conv(self):
        channels = self.shape[0]
        groups = int(self.rng.choice([g for g in (1, 1, 2, channels) if channels % g == 0]))
        filters = groups * int(self.rng.integers(1, 5))
        self.tensor, self.shape = self._convolved(self.tensor, channels, filters, groups)

    def _norm(self):
        self.tensor = self.graph.norm(self.tensor, self.shape[0])

    def _relu(self):
        self.tensor = self.graph.add("Relu", self.tensor)

    def _affine(self):
        kind = str(self.rng.choice(["Add", "Sub", "Mul", "Div"]))
        values = self.rng.uniform(0.5, 2, (self.shape[0], 1, 1))
        operands = [self.tensor, self.graph.constant(values)]
        if kind in ("Add", "Sub", "Mul") and self.rng.integers(2):
            operands.reverse()
        self.tensor = self.graph.add(kind, *operands)

    def _pool(self):
        kind = str(self.rng.choice(["MaxPool", "AveragePool"]))
        kernel = [min(int(self.rng.integers(1, 4)), side) for side in self.shape[1:]]
        stride = [int(step) for step in self.rng.integers(1, 3, 2)]
        pads = [int(self.rng.integers(0, kernel[axis % 2])) for axis in range(4)]
        options = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        if kind == "AveragePool":
            options["count_include_pad"] = int(self.rng.integers(2))
        self.tensor = self.graph.add(kind, self.tensor, **options)
        out = [
            (self.shape[1 + a] + pads[a] + pads[a + 2] - kernel[a]) // stride[a] + 1 for a in (0, 1)
        ]
        self.shape = (self.shape[0], *out)

    def _residual(self):
        channels, before = self.shape[0], self.tensor
        made = self.graph.conv(before, channels, channels, (3, 3), pads=[1, 1, 1, 1])
        if self.rng.integers(2):
            made = self.graph.norm(made, channels)
        if self.rng.integers(2):
            before = self.graph.conv(before, channels, channels)
        operands = [made, before] if self.rng.integers(2) else [before, made]
        self.tensor = self.graph.add("Add", *operands)

    def _joined(self):
        channels = self.shape[0]
        other = self.graph.conv(self.tensor, 3, channels)
        self.tensor = self.graph.add("Concat", other, self.tensor, axis=1)
        self.shape = (channels + 3, *self.shape[1:])

    def _padded(self):
        pads = self.graph.constant([0, 0, 1, 0, 0, 0, 0, 2], np.int64)
        padded = self.graph.add("Pad", self.tensor, pads)
        self.tensor = self.graph.conv(padded, 2, self.shape[0], (2, 3))
        self.shape = (2, *self.shape[1:])

    def _end(self):
        channels, height, width = self.shape
        kind = int(self.rng.integers(4))
        inputs = channels * height * width
        if kind == 0:
            self.tensor = self.graph.add("GlobalAveragePool", self.tensor)
            inputs = channels
        if kind == 1:
            self.tensor = self.graph.add("ReduceMean", self.tensor, axes=[2, 3], keepdims=0)
            inputs = channels
        if kind in (0, 2):
            self.tensor = self.graph.add("Flatten", self.tensor)
        if kind == 3:
            target = self.graph.constant([0, -1], np.int64)
            self.tensor = self.graph.add("Reshape", self.tensor, target)
        weights, scale = (inputs, 3), inputs**-0.5
        if self.rng.integers(2):
            matrix = self.graph.random(*weights, scale=scale)
            made = self.graph.add("MatMul", self.tensor, matrix)
            self.tensor = self.graph.add("Add", made, self.graph.random(3))
        else:
            matrix = self.graph.random(*weights[::-1], scale=scale)
            options = {"transB": 1, "alpha": 0.5, "beta": 2.0}
            bias = self.graph.random(3)
            self.tensor = self.graph.add("Gemm", self.tensor, matrix, bias, **options)
