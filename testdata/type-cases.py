"""Makes type-cases.tar.zst: ONNX's cases again in other element types, with what ONNX's reference implementation gives.

Every case of one operator whose operands are float32 is made again in float64 where the operator takes it, and for operators
that also take integers in some of them, and computed by onnx.reference.ReferenceEvaluator. Left out: what that cannot compute,
large cases and random operators. The tolerance is 1e-11, or 1e-5 for what `SINGLE` names with the reason.

    python type-cases.py        # needs onnx, numpy, ml_dtypes, zstandard
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import onnx
import zstandard
from onnx import TensorProto as T
from onnx import defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

HERE = Path(__file__).parent
MOST = 20_000
RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
INTEGERS = {"Gemm", "Einsum", "Shrink", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
NAMES = {T.DOUBLE: "float64", T.INT32: "int32", T.INT64: "int64", T.INT8: "int8", T.UINT8: "uint8", T.UINT32: "uint32"}
STASH = "what is normalised is float32 unless stash_type says otherwise"
SINGLE = {
    "Adam": "the reference computes 1 - beta in float32",
    "DeformConv": "the reference samples in float32",
    "Gelu": "the reference's erf is that of float32",
    "GridSample": "the reference's coordinates are float32",
    "GroupNormalization": STASH,
    "LayerNormalization": STASH,
    "RMSNormalization": STASH,
    "Resize": "coordinates and weights are float32 here, whatever is resized",
}


def cases():
    raw = zstandard.ZstdDecompressor().stream_reader((HERE / "onnx-conformance-1.23.2.tar.zst").open("rb"))
    found = {}
    with tarfile.open(fileobj=raw, mode="r|") as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and "node" in parts:
                case = parts[parts.index("node") + 1]
                found.setdefault(case, {})[parts[-1]] = tar.extractfile(member).read()
    return dict(sorted(found.items()))


def takes(node, model, to):
    """Whether the operands and results that are float32 may be `to`."""
    version = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    schema = defs.get_schema(node.op_type, version, node.domain)
    wanted = f"tensor({'double' if to == T.DOUBLE else NAMES[to]})"
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}

    def fits(formal, actual):
        for i, name in enumerate(actual):
            f = formal[min(i, len(formal) - 1)]
            if types.get(name) == T.FLOAT and wanted not in f.types:
                return False
        return True

    return fits(schema.inputs, node.input) and fits(schema.outputs, node.output)


def cast(x, to):
    dtype = helper.tensor_dtype_to_np_dtype(to)
    if to == T.DOUBLE:
        return x.astype(dtype)
    x = np.rint(np.nan_to_num(x.astype(np.float64)) * 2).clip(-9, 9)
    return (np.abs(x) if dtype.kind == "u" else x).astype(dtype)


def again(name, files, to):
    model = onnx.load_from_string(files["model.onnx"])
    graph = model.graph
    if len(graph.node) != 1 or model.functions or sum(map(len, files.values())) > MOST:
        return None
    node = graph.node[0]
    every = [*graph.input, *graph.output]
    if node.op_type in RANDOM or not all(v.type.HasField("tensor_type") for v in every):
        return None
    if not any(v.type.tensor_type.elem_type == T.FLOAT for v in every) or graph.initializer or not takes(node, model, to):
        return None
    # What names a type itself, or has parameters of that type, stays what it is.
    if any(a.name in ("to", "dtype", "value", "output_dtype", "value_float", "value_floats") for a in node.attribute):
        return None
    for v in every:
        if v.type.tensor_type.elem_type == T.FLOAT:
            v.type.tensor_type.elem_type = to
    inputs = []
    for i, v in enumerate(graph.input):
        x = numpy_helper.to_array(onnx.load_tensor_from_string(files[f"input_{i}.pb"]))
        inputs.append(cast(x, to) if x.dtype == np.float32 else x)
    feeds = {v.name: x for v, x in zip(graph.input, inputs)}
    try:
        with np.errstate(all="ignore"):
            outputs = ReferenceEvaluator(model).run(None, feeds)
    except Exception as e:
        print(f"{name} {NAMES[to]}: the reference cannot: {str(e)[:100]!r}")
        return None
    kinds = [helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in graph.output]
    if [np.asarray(y).dtype for y in outputs] != kinds:
        print(f"{name} {NAMES[to]}: the reference gives {[np.asarray(y).dtype.name for y in outputs]}")
        return None
    return model, inputs, outputs


def main():
    made, out = 0, io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(path, data):
            info = tarfile.TarInfo(f"type-cases/types/{path}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for name, files in cases().items():
            op = onnx.load_from_string(files["model.onnx"]).graph.node[0].op_type
            for to in [t for t in NAMES if t == T.DOUBLE or op in INTEGERS]:
                tag = f"{name}_{NAMES[to]}"
                if (case := again(name, files, to)) is None:
                    continue
                model, inputs, outputs = case
                rtol = 1e-5 if op in SINGLE else 1e-11
                add(f"{tag}/model.onnx", model.SerializeToString())
                add(f"{tag}/tolerance.json", json.dumps({"rtol": rtol, "atol": rtol / 10}).encode())
                for kind, values in (("input", inputs), ("output", outputs)):
                    for i, x in enumerate(values):
                        data = numpy_helper.from_array(np.asarray(x)).SerializeToString()
                        add(f"{tag}/test_data_set_0/{kind}_{i}.pb", data)
                made += 1
    path = HERE / "type-cases.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(out.getvalue()))
    print(f"{made} cases, {path.stat().st_size} bytes")


main()
