"""Times a model with ONNX Runtime's CPU provider, default options, and prints one line of JSON.

    peer_ort.py MODEL.onnx INPUTS.npz THREADS REPEAT
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def main(model, inputs, threads, repeat):
    arrays = dict(np.load(inputs))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    times = []
    for _ in range(int(repeat)):
        start = time.perf_counter()
        session.run(None, arrays)
        times.append(1e3 * (time.perf_counter() - start))
    print(json.dumps({"load_ms": 1e3 * load, "times_ms": times}))


main(*sys.argv[1:])
