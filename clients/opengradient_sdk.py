"""OpenGradient's SDK, as it comes: an inference through its hub address, its errors, and ours in its words.

The version decides how it is called: module functions (0.5), a client (0.7), classes (1.1)."""

import json
import os
from importlib.metadata import version

import numpy as np

from common import check, digit, done

URL, KEY = os.environ["ISOBIT_URL"], os.environ["ISOBIT_OG_KEY"]
HUB = "0x8383C9bD7462F12Eb996DD02F78234C0421A6FaE"
VERSION = version("opengradient")

import opengradient as og  # noqa: E402

VANILLA = getattr(og, "InferenceMode", None) or og.types.InferenceMode
if VERSION.startswith("0.5"):
    og.init(email=None, password=None, private_key=KEY, rpc_url=URL, api_url=URL, contract_address=HUB)
    infer = og.infer
elif VERSION.startswith("0.7"):
    client = og.init(private_key=KEY, rpc_url=URL, api_url=URL, contract_address=HUB,
                     og_llm_server_url="http://127.0.0.1:9", og_llm_streaming_server_url="http://127.0.0.1:9")
    infer = client.alpha.infer
else:
    infer = og.Alpha(private_key=KEY, rpc_url=URL, inference_contract_address=HUB, api_url=URL).infer

image = (np.array(digit["pixels"], dtype=np.float32) / 16).reshape(1, 1, 8, 8)
expected = json.loads(os.environ["ISOBIT_EXPECTED"])

for model in (os.environ["ISOBIT_MODEL"][2:], "isobit/digits-cnn"):
    result = infer(model, VANILLA.VANILLA, {"image": image})
    got = result.model_output["probabilities"]
    check("shape", got.shape == (1, 10) and got.dtype == np.float32)
    check("the digit", int(got.argmax()) == digit["label"])
    check(f"the same bits as `isobit run`: {got.tolist()}", got.flatten().tolist() == [np.float32(x) for x in expected])
    check("transaction", len(result.transaction_hash) == 64)
batch = np.concatenate([image, np.zeros_like(image), image[:, :, ::-1]])
got = infer("isobit/digits-cnn", VANILLA.VANILLA, {"image": batch}).model_output["probabilities"]
check("a batch, and its first as alone", got.shape == (3, 10) and got[0].tolist() == [np.float32(x) for x in expected])


def refused(what, why, *args):
    try:
        infer(*args)
    except Exception as e:  # noqa: BLE001: each version has types of its own
        text = f"{e} {e.__cause__ or ''}"
        check(f"{what}: {text}", why in text)
        return
    check(what, False)


refused("no such model", "is not published on this network", "no/such-model", VANILLA.VANILLA, {"image": image})
refused("another input", "no input 'picture'", "isobit/digits-cnn", VANILLA.VANILLA, {"picture": image})
refused("another shape", "the model takes [any, 1, 8, 8]", "isobit/digits-cnn", VANILLA.VANILLA, {"image": image[0]})
refused("no input", "input 'image' is missing", "isobit/digits-cnn", VANILLA.VANILLA, {})
refused("proved", "level proved", "isobit/digits-cnn", VANILLA.ZKML, {"image": image})
refused("attested", "level attested", "isobit/digits-cnn", VANILLA.TEE, {"image": image})
done(f"opengradient {VERSION} (web3 {version('web3')})")
