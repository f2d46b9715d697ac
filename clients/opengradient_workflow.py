"""OpenGradient's SDK, as it comes: a PriceHistory workflow deployed, run, read and scheduled, on prices that the operator sets."""

import os
import subprocess
import tempfile
import time
from importlib.metadata import version

import numpy as np
from web3 import Web3
import web3

from common import artifact, check, done

URL, KEY = os.environ["ISOBIT_URL"], os.environ["ISOBIT_OG_KEY"]
HUB = "0x8383C9bD7462F12Eb996DD02F78234C0421A6FaE"
VERSION = version("opengradient")

import opengradient as og  # noqa: E402
from opengradient import types  # noqa: E402

w3 = Web3(Web3.HTTPProvider(URL))
operator = w3.eth.account.from_key(os.environ["ISOBIT_KEY_HEX"])
w3.middleware_onion.inject(web3.middleware.SignAndSendRawMiddlewareBuilder.build(operator), layer=0)
w3.eth.default_account = operator.address
feed = w3.eth.contract("0x00000000000000000000000000000000000000F5", abi=artifact("PriceFeed")["abi"])
scheduler = w3.eth.contract("0x7179724De4e7FF9271FA40C0337c7f90C0508eF6", abi=artifact("WorkflowScheduler")["abi"])


def transact(function):
    receipt = w3.eth.wait_for_transaction_receipt(function.transact())
    check("a transaction succeeds", receipt.status == 1)
    return receipt


# A model of candles: the mean of each column. ONNX by hand, as nothing here writes it: fields of protobuf.
def field(number, content):
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def value_info(name, *dims):
    shape = b"".join(field(1, field(2, d) if isinstance(d, str) else field(1, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


name = f"candles-{VERSION}"
axes = field(1, "axes") + field(8, 0) + field(20, 7)
keep = field(1, "keepdims") + field(3, 0) + field(20, 2)
node = field(1, "candles") + field(2, "mean") + field(4, "ReduceMean") + field(5, axes) + field(5, keep)
graph = field(1, node) + field(2, name) + field(11, value_info("candles", "rows", 4)) + field(12, value_info("mean", 4))
path = os.path.join(tempfile.mkdtemp(), "candles.onnx")
open(path, "wb").write(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
model = "isobit/candles"
subprocess.run([os.environ["ISOBIT"], "publish", path, "--name", model], capture_output=True, check=False)
check("published", w3.eth.contract("0x0000000000000000000000000000000000150b17", abi=artifact("IIsobit")["abi"])
      .functions.modelNamed(model).call() != bytes(32))

check("the operator", feed.functions.operator().call() == operator.address)
other = w3.eth.account.create()
try:
    feed.functions.post("ETH", "USDT", 30, 1, []).call({"from": other.address})
    check("somebody else", False)
except web3.exceptions.ContractCustomError as e:
    check("only the operator sets prices", Web3.keccak(text="NotTheOperator(address,address)")[:4].hex() in str(e.data))
now = int(time.time()) // 60 // 30
pair = f"ETH{VERSION}"
candles = [((i + 3) * 10**8, i * 10**8 + 5, 2 * i * 10**8 + 50_000_000, (i - 1) * 10**8, 7 * 10**8, 8) for i in range(12)]
transact(feed.functions.post(pair, "USDT", 30, now - 11, candles))
kinds = [types.CandleType.OPEN, types.CandleType.HIGH, types.CandleType.LOW, types.CandleType.CLOSE]
query = types.HistoricalInputQuery(base=pair, quote="USDT", total_candles=10, candle_duration_in_mins=30,
                                   order=types.CandleOrder.ASCENDING, candle_types=kinds)
rows = np.array([[c[2], c[0], c[1], c[3]] for c in candles[2:]], dtype=np.float64) / 1e8
expected = rows.astype(np.float32).mean(axis=0, dtype=np.float64)

if VERSION.startswith("0.5"):
    og.init(email=None, password=None, private_key=KEY, rpc_url=URL, api_url=URL, contract_address=HUB)
    alpha = og.alpha
elif VERSION.startswith("0.7"):
    alpha = og.init(private_key=KEY, rpc_url=URL, api_url=URL, contract_address=HUB,
                    og_llm_server_url="http://127.0.0.1:9", og_llm_streaming_server_url="http://127.0.0.1:9").alpha
else:
    alpha = og.Alpha(private_key=KEY, rpc_url=URL, inference_contract_address=HUB, api_url=URL)
scheduled = types.SchedulerParams(frequency=10, duration_hours=1)
address = alpha.new_workflow(model_cid=model, input_query=query, input_tensor_name="candles")
check("deployed", len(w3.eth.get_code(address)) > 0)
ran = alpha.run_workflow(address)
got = ran.numbers["mean"] if hasattr(ran, "numbers") else ran["mean"]
check(f"run: {got} {expected}", np.allclose(got, expected, rtol=1e-6))
read = alpha.read_workflow_result(address)
check("read", np.array_equal(read.numbers["mean"] if hasattr(read, "numbers") else read["mean"], got))

# New prices, and the scheduler: it runs by itself.
transact(feed.functions.post(pair, "USDT", 30, now + 1, [(9 * 10**8, 10**8, 4 * 10**8, 5 * 10**8, 0, 8)]))
second = alpha.new_workflow(model_cid=model, input_query=query, input_tensor_name="candles", scheduler_params=scheduled)
tasks = [t for t in scheduler.functions.getAllTasks().call() if t[1] == second]
check("registered", len(tasks) == 1 and tasks[0][3] == 10)
for _ in range(60):
    history = []
    try:
        history = alpha.read_workflow_history(second, 5)
    except Exception:  # noqa: BLE001: none yet
        pass
    if len(history) >= 2:
        break
    time.sleep(1)
check("run by the scheduler, twice", len(history) >= 2)
rows = np.concatenate([rows[1:], [[4, 9, 1, 5]]])
got = history[0].numbers["mean"] if hasattr(history[0], "numbers") else history[0]["mean"]
check("on the new prices", np.allclose(got, rows.astype(np.float32).mean(axis=0, dtype=np.float64), rtol=1e-6))
done(f"opengradient {VERSION}, workflows")
