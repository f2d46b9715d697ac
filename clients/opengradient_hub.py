"""OpenGradient's SDK, as it comes: login, models, versions and files of the hub, and an inference on what was uploaded."""

import os
import random
import tempfile
from importlib.metadata import version

import numpy as np

from common import HERE, check, digit, done

URL, KEY = os.environ["ISOBIT_URL"], os.environ["ISOBIT_OG_KEY"]
EMAIL, PASSWORD = "hub@example.org", os.environ["ISOBIT_HUB_PASSWORD"]
HUB = "0x8383C9bD7462F12Eb996DD02F78234C0421A6FaE"
VERSION = version("opengradient")

import opengradient as og  # noqa: E402

VANILLA = (getattr(og, "InferenceMode", None) or og.types.InferenceMode).VANILLA


def connect(password):
    if VERSION.startswith("0.5"):
        og.init(email=EMAIL, password=password, private_key=KEY, rpc_url=URL, api_url=URL, contract_address=HUB)
        return og, og.infer
    if VERSION.startswith("0.7"):
        client = og.init(private_key=KEY, email=EMAIL, password=password, rpc_url=URL, api_url=URL, contract_address=HUB,
                         og_llm_server_url="http://127.0.0.1:9", og_llm_streaming_server_url="http://127.0.0.1:9")
        return client.model_hub, client.alpha.infer
    alpha = og.Alpha(private_key=KEY, rpc_url=URL, inference_contract_address=HUB, api_url=URL)
    return og.ModelHub(email=EMAIL, password=password), alpha.infer


try:
    connect("not the password")
    check("a wrong password", False)
except SystemExit:
    raise
except Exception as e:  # noqa: BLE001: each version has types of its own
    check(f"a wrong password: {e}", "INVALID_LOGIN_CREDENTIALS" in str(e))
hub, infer = connect(PASSWORD)
model = f"digits-{random.randrange(10**9)}"
created = hub.create_model(model, "Digits of 8 by 8")
check("created", created.name == model)
label = getattr(created, "initialVersion", None) or "1.00"
check("first version", label == "1.00")
made = hub.create_version(model, "better", False)
check("next version", made["versionString"] == "1.01")
check("a major one", hub.create_version(model, "best", True)["versionString"] == "2.00")
# A model of its own: the digits model with one bit of one weight changed.
content = bytearray((HERE / "../models/digits-cnn/model.onnx").read_bytes())
content[len(content) // 2 // 4 * 4 + random.randrange(64)] ^= 1
onnx = os.path.join(tempfile.mkdtemp(), "model.onnx")
open(onnx, "wb").write(content)
uploaded = hub.upload(onnx, model, "1.01")
cid = uploaded.modelCid
check(f"a CID: {cid}", cid.startswith("bafkr4i") and uploaded.size == os.path.getsize(onnx))
image = (np.array(digit["pixels"], dtype=np.float32) / 16).reshape(1, 1, 8, 8)
answer = infer(cid, VANILLA, {"image": image}).model_output["probabilities"]
check("an inference on what was uploaded", int(answer.argmax()) == digit["label"])
readme = HERE / "README.md"
hub.upload(str(readme), model, "1.01")
files = {f["name"]: f["size"] for f in hub.list_files(model, "1.01")}
check(f"files: {files}", files == {"model.onnx": os.path.getsize(onnx), "README.md": readme.stat().st_size})
if VERSION.startswith("1."):
    hub._token_expiry = 0  # the older ones never refresh
    before = hub._hub_user["idToken"]
    check("refreshed", len(hub.list_files(model, "1.01")) == 2 and hub._hub_user["idToken"] != before)
for what, why, act in [
    ("no such model", "no model nothing", lambda: hub.upload(onnx, "nothing", "1.00")),
    ("no such version", "no branch or revision", lambda: hub.upload(onnx, model, "9.99")),
    ("not ONNX", "cannot be executed", lambda: hub.upload(os.environ["ISOBIT_BAD_ONNX"], model, "1.01")),
    ("twice the same name", "already", lambda: hub.create_model(model, "again")),
]:
    try:
        act()
        check(what, False)
    except SystemExit:
        raise
    except Exception as e:  # noqa: BLE001
        check(f"{what}: {e}", why in str(e))
done(f"opengradient {VERSION}, model hub")
