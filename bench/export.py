"""Exports the eight models of the benchmark, with inputs and two references.

For each model, in bench/models/NAME/: model.onnx (and its external data), inputs.npz, ort.npz (ONNX Runtime's outputs),
torch.npz (PyTorch's). Weights are random from a fixed seed: neither speed nor parity depends on their values.

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


def image():
    return {"input": torch.randn(1, 3, 224, 224)}


def tokens(with_mask):
    ids = {"input_ids": torch.randint(0, 1000, (1, 128))}
    if with_mask:
        mask = torch.ones(1, 128, dtype=torch.int64)
        mask[:, 100:] = 0
        ids["attention_mask"] = mask
    return ids


MINILM = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
BUILD = {
    "resnet50": (lambda: vision("resnet50"), image),
    "mobilenet_v3_large": (lambda: vision("mobilenet_v3_large"), image),
    "efficientnet_b0": (lambda: vision("efficientnet_b0"), image),
    "vit_b_16": (lambda: vision("vit_b_16"), image),
    "bert_base": (Bert, lambda: tokens(True)),
    "minilm_l6": (lambda: Bert(**MINILM), lambda: tokens(True)),
    "gpt2": (Gpt2, lambda: tokens(False)),
    "lstm": (Lstm, lambda: {"x": torch.randn(8, 100, 64)}),
}


def export(name):
    build, make_inputs = BUILD[name]
    torch.manual_seed(20)
    model, inputs = build().eval(), make_inputs()
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    torch.onnx.export(model, tuple(inputs.values()), path, dynamo=True, verbose=False, input_names=list(inputs))
    with torch.no_grad():
        reference = model(*inputs.values()).numpy()
    arrays = {k: v.numpy() for k, v in inputs.items()}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    outputs = session.run(names, arrays)
    np.savez(folder / "inputs.npz", **arrays)
    np.savez(folder / "ort.npz", **dict(zip(names, outputs)))
    np.savez(folder / "torch.npz", **{names[0]: reference})
    proto = onnx.load(path, load_external_data=False)
    ops = collections.Counter(n.op_type for n in proto.graph.node)
    print(f"{name}: opset {proto.opset_import[0].version}, {len(proto.graph.node)} nodes, {dict(ops)}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count())
    for name in sys.argv[1:] or BUILD:
        export(name)
