"""Exports the models of the benchmark, with inputs and two references.

For each model, in bench/models/NAME/: model.onnx (and its external data), inputs.npz, ort.npz (ONNX Runtime's outputs),
torch.npz (PyTorch's, where there is one). Weights are random from a fixed seed: neither speed nor parity depends on their
values. NAME@8 is the model with a batch of 8.

    bench/setup.sh && bench/.venv/bin/python bench/export.py [NAME...]
"""

import collections
import os
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
import transformers

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
MODELS = pathlib.Path(__file__).parent / "models"


class Lstm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(64, 256, 2, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Gru(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(64, 256, 2, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


class Bert(torch.nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.bert = transformers.BertModel(transformers.BertConfig(**config))

    def forward(self, input_ids, attention_mask):
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class Gpt2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config())

    def forward(self, input_ids):
        return self.gpt2(input_ids=input_ids, use_cache=False).logits


class Gpt2Decode(torch.nn.Module):
    """One token after others: their keys and values are given, all come back."""

    def __init__(self):
        super().__init__()
        self.gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config())

    def forward(self, input_ids, *past):
        layers = [(past[i], past[i + 1]) for i in range(0, len(past), 2)]
        cache = transformers.DynamicCache(layers)
        result = self.gpt2(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return result.logits, *[x for layer in cache.layers for x in (layer.keys, layer.values)]


def decode_inputs(batch):
    past = {f"past_{kind}_{i}": torch.randn(batch, 12, 127, 64) for i in range(12) for kind in ("key", "value")}
    return {"input_ids": torch.randint(0, 1000, (batch, 1)), **past}


def vision(name):
    model = getattr(torchvision.models, name)(weights=None)
    for module in model.modules():
        # Fresh statistics would make every batch normalisation the identity.
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    if name == "vit_b_16":
        # Its classifier starts at zero, and every output would be.
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def image(batch):
    return {"input": torch.randn(batch, 3, 224, 224)}


def tokens(batch, with_mask, length=128):
    ids = {"input_ids": torch.randint(0, 1000, (batch, length))}
    if with_mask:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[:, length * 25 // 32 :] = 0
        ids["attention_mask"] = mask
    return ids


MINILM = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
BUILD = {
    "resnet50": (lambda: vision("resnet50"), image),
    "mobilenet_v3_large": (lambda: vision("mobilenet_v3_large"), image),
    "efficientnet_b0": (lambda: vision("efficientnet_b0"), image),
    "vit_b_16": (lambda: vision("vit_b_16"), image),
    "bert_base": (Bert, lambda batch: tokens(batch, True)),
    "minilm_l6": (lambda: Bert(**MINILM), lambda batch: tokens(batch, True)),
    "gpt2": (Gpt2, lambda batch: tokens(batch, False)),
    "gpt2-decode": (Gpt2Decode, decode_inputs),
    "lstm": (Lstm, lambda batch: {"x": torch.randn(8 * batch, 100, 64)}),
    "gru": (Gru, lambda batch: {"x": torch.randn(8 * batch, 100, 64)}),
}
# Curves: sequence lengths of one model.
for length in [16, 64, 256, 512, 1024]:
    positions = max(length, 512)
    build = lambda positions=positions: Bert(**MINILM, max_position_embeddings=positions)
    BUILD[f"minilm_l6-{length}"] = (build, lambda batch, n=length: tokens(batch, True, n))


def references(folder, arrays, torch_output=None):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    outputs = session.run(names, arrays)
    np.savez(folder / "inputs.npz", **arrays)
    np.savez(folder / "ort.npz", **dict(zip(names, outputs)))
    if torch_output is not None:
        np.savez(folder / "torch.npz", **{names[0]: torch_output})
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    ops = collections.Counter(n.op_type for n in proto.graph.node)
    print(f"{folder.name}: opset {proto.opset_import[0].version}, {len(proto.graph.node)} nodes, {dict(ops)}", flush=True)


def export(name):
    base, _, batch = name.partition("@")
    build, make_inputs = BUILD[base]
    torch.manual_seed(20)
    model, inputs = build().eval(), make_inputs(int(batch or 1))
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    torch.onnx.export(model, tuple(inputs.values()), path, dynamo=True, verbose=False, input_names=list(inputs))
    with torch.no_grad():
        reference = model(*inputs.values())
        reference = (reference[0] if isinstance(reference, tuple) else reference).numpy()
    references(folder, {k: v.numpy() for k, v in inputs.items()}, reference)


def quantized(name):
    """int8: QuantizeLinear and DequantizeLinear around every operator, or weights in int8 and what they meet as it comes."""
    from onnxruntime import quantization

    base, kind = name.rsplit("-", 1)
    folder, source = MODELS / name, MODELS / base / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = dict(np.load(MODELS / base / "inputs.npz"))
    if kind == "qdq":
        class Reader(quantization.CalibrationDataReader):
            def __init__(self):
                self.rest = iter([arrays])

            def get_next(self):
                return next(self.rest, None)

        quantization.quantize_static(source, folder / "model.onnx", Reader(), per_channel=True)
    else:
        model = onnx.load(source)
        del model.graph.value_info[:]  # what it says of weights is wrong once they are turned
        quantization.quantize_dynamic(model, folder / "model.onnx")
    references(folder, arrays)


def trees(name):
    """1000 complete trees of depth 8 on 32 features, as XGBoost writes them."""
    rows = int(name.partition("@")[2] or 1)
    rng = np.random.default_rng(5)
    depth, count, features = 8, 1000, 32
    inner, all_nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    ids = np.tile(np.arange(all_nodes), count)
    tree = np.repeat(np.arange(count), all_nodes)
    branch = np.tile(np.arange(all_nodes) < inner, count)
    children = np.where(branch, 2 * ids + 1, 0)
    leaves = ~branch
    values = np.where(branch, rng.standard_normal(len(ids)), 0).astype(np.float32)
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=tree, nodes_nodeids=ids, nodes_values=values,
        nodes_featureids=np.where(branch, rng.integers(0, features, len(ids)), 0),
        nodes_modes=np.where(branch, "BRANCH_LT", "LEAF").tolist(),
        nodes_truenodeids=children, nodes_falsenodeids=np.where(branch, children + 1, 0),
        target_treeids=tree[leaves], target_nodeids=ids[leaves], target_ids=np.zeros(leaves.sum(), np.int64),
        target_weights=(0.1 * rng.standard_normal(leaves.sum())).astype(np.float32),
    )
    value = lambda n, w: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [rows, w])
    graph = onnx.helper.make_graph([node], "trees", [value("x", features)], [value("y", 1)])
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")
    references(folder, {"x": rng.standard_normal((rows, features)).astype(np.float32)})


def digits(name):
    """The small model of this repository, where what an operator costs besides its work decides."""
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes((MODELS.parents[1] / "models/digits-cnn/model.onnx").read_bytes())
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in given.shape]
    references(folder, {given.name: np.random.default_rng(1).random(shape, np.float32)})


OTHERS = {
    **{f"{base}-{kind}": quantized for base in ("resnet50", "mobilenet_v3_large", "bert_base") for kind in ("qdq", "dynamic")},
    "trees": trees, "trees@100": trees, "trees@10000": trees, "digits": digits,
}
EIGHT = [n for n in list(BUILD)[:9] if n != "gpt2-decode"]
ALL = list(BUILD) + [f"{n}@8" for n in EIGHT] + [f"mobilenet_v3_large@{n}" for n in (2, 4, 16, 32, 64)] + list(OTHERS)

if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count())
    for name in sys.argv[1:] or ALL:
        OTHERS.get(name, export)(name)
