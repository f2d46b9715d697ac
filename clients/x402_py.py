"""x402's own Python client and facilitator client, as they come: an inference paid by HTTP 402, payments verified and settled."""

import base64
import json
import os

import requests
import x402
from web3 import Web3
import web3
from x402 import x402ClientSync
from x402.http import HTTPFacilitatorClientSync
from x402.http.clients.requests import wrapRequestsWithPayment
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.schemas import PaymentPayload, PaymentRequirements

from common import artifact, check, digit, done

URL = os.environ["ISOBIT_URL"]
WISO = "0x0000000000000000000000000000000000150b18"
w3 = Web3(Web3.HTTPProvider(URL))
funder = w3.eth.account.from_key(os.environ["ISOBIT_KEY_HEX"])
w3.middleware_onion.inject(web3.middleware.SignAndSendRawMiddlewareBuilder.build(funder), layer=0)
w3.eth.default_account = funder.address
token = w3.eth.contract(WISO, abi=artifact("WrappedIso")["abi"])


def transact(function, **more):
    receipt = w3.eth.wait_for_transaction_receipt(function.transact(more))
    check("a transaction succeeds", receipt.status == 1)
    return receipt


def tokens(address):
    return token.functions.balanceOf(address).call()


# The payer has tokens, and no coins at all.
payer = w3.eth.account.create()
transact(token.functions.deposit(), value=10**18)
transact(token.functions.transfer(payer.address, 10**18))
check("ERC-20", token.functions.symbol().call() == "WISO" and token.functions.decimals().call() == 18)
check("the payer has no coins", w3.eth.get_balance(payer.address) == 0 and tokens(payer.address) == 10**18)

image = [p / 16 for p in digit["pixels"]]
body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": image}]}
route = f"{URL}/v2/models/isobit%2Fdigits-cnn/infer"
refused = requests.post(route, json=body, timeout=30)
required = json.loads(base64.b64decode(refused.headers["PAYMENT-REQUIRED"]))
check("402", refused.status_code == 402 and required == refused.json() and required["x402Version"] == 2)
asked = required["accepts"][0]
check("what is asked for", asked["scheme"] == "exact" and asked["network"] == "eip155:1729" and asked["asset"] == WISO)

# What every user of a token that is no stablecoin has to allow.
ALLOWED = {"allowed_assets": [{"network": "eip155:1729", "asset": WISO, "max_amount_per_payment": str(10**18)}]}
client = x402ClientSync().set_spend_controls(ALLOWED)
register_exact_evm_client(client, payer)
session = wrapRequestsWithPayment(requests.Session(), client)
answer = session.post(route, json=body, timeout=120)
check("paid and answered", answer.status_code == 200)
result = answer.json()
scores = result["outputs"][0]["data"]
check("the digit", result["outputs"][0]["datatype"] == "FP32" and scores.index(max(scores)) == digit["label"])
paid = json.loads(base64.b64decode(answer.headers["PAYMENT-RESPONSE"]))
check("the payment's answer", paid["success"] and paid["payer"] == payer.address.lower() or paid["payer"] == payer.address)
check("the payment is in a block", w3.eth.get_transaction_receipt(paid["transaction"]).status == 1)
spent = 10**18 - tokens(payer.address)
cost = int(result["parameters"]["paid"])
check("what was asked for is what it costs, and the gas of giving the rest back",
      cost > 0 and spent == int(asked["amount"]) == cost + 200_000 * 10**9)
check("no coins still", w3.eth.get_balance(payer.address) == 0)
three = session.post(route + "?replicas=3", json=body, timeout=120).json()
check("three nodes say the same", three["parameters"]["outputs_root"] == result["parameters"]["outputs_root"])
check("and cost more", int(three["parameters"]["paid"]) > cost)

# As the facilitator of another service.
facilitator = HTTPFacilitatorClientSync({"url": f"{URL}/x402"})
supported = facilitator.get_supported()
check("supported", [(k.x402_version, k.scheme, k.network) for k in supported.kinds] == [(2, "exact", "eip155:1729")])
shop = w3.eth.account.create().address
wanted = PaymentRequirements(scheme="exact", network="eip155:1729", asset=WISO, amount="1000", pay_to=shop,
                             max_timeout_seconds=60, extra={"name": "Wrapped ISO", "version": "1"})


def payment(by, requirements):
    scheme = register_exact_evm_client(x402ClientSync().set_spend_controls(ALLOWED), by)
    required = x402.schemas.PaymentRequired(accepts=[requirements])
    return scheme.create_payment_payload(required)


good = payment(payer, wanted)
check("verified", facilitator.verify(good, wanted).is_valid)
settled = facilitator.settle(good, wanted)
check("settled", settled.success and settled.network == "eip155:1729" and tokens(shop) == 1000)
check("only once", facilitator.settle(good, wanted).error_reason == "invalid_exact_evm_nonce_already_used")
poor = payment(w3.eth.account.create(), wanted)
check("no tokens", facilitator.verify(poor, wanted).invalid_reason == "invalid_exact_evm_insufficient_balance")
dearer = wanted.model_copy(update={"amount": "1001"})
check("another amount", facilitator.verify(payment(payer, wanted), dearer).invalid_reason
      == "invalid_exact_evm_payload_authorization_value_mismatch")
elsewhere = wanted.model_copy(update={"pay_to": payer.address})
check("another payee", facilitator.verify(payment(payer, wanted), elsewhere).invalid_reason
      == "invalid_exact_evm_payload_recipient_mismatch")
forged = payment(payer, wanted)
forged.payload["authorization"]["nonce"] = "0x" + "11" * 32
check("a changed payment", facilitator.verify(forged, wanted).invalid_reason == "invalid_exact_evm_payload_signature")
stale = payment(payer, wanted.model_copy(update={"max_timeout_seconds": 1}))
check("too late", facilitator.verify(stale, wanted).invalid_reason
      == "invalid_exact_evm_payload_authorization_valid_before")
nonsense = requests.post(f"{URL}/x402/verify", data="{}", timeout=30)
check("nonsense", nonsense.status_code == 400 and "x402" in nonsense.json()["error"])
PaymentPayload.model_validate(good.model_dump())
done(f"x402 {x402.__version__}")
