// x402's own TypeScript client, as it comes: an inference paid by HTTP 402.
import { wrapFetchWithPaymentFromConfig, decodePaymentResponseHeader } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { createWalletClient, createPublicClient, http, defineChain } from "viem";
import { privateKeyToAccount, generatePrivateKey } from "viem/accounts";
import { artifact, check, digit, done } from "./common.mjs";

const url = process.env.ISOBIT_URL;
const chain = defineChain({ id: 1729, name: "Isobit", nativeCurrency: { name: "ISO", symbol: "ISO", decimals: 18 }, rpcUrls: { default: { http: [url] } } });
const funder = createWalletClient({ account: privateKeyToAccount(process.env.ISOBIT_KEY_HEX), chain, transport: http(url) });
const reader = createPublicClient({ chain, transport: http(url) });
const address = "0x0000000000000000000000000000000000150b18";
const abi = artifact("WrappedIso").abi;
const payer = privateKeyToAccount(generatePrivateKey());
for (const call of [{ functionName: "deposit", value: 10n ** 18n }, { functionName: "transfer", args: [payer.address, 10n ** 18n] }]) {
  const hash = await funder.writeContract({ address, abi, ...call });
  check(call.functionName, (await reader.waitForTransactionReceipt({ hash })).status === "success");
}
// What every user of a token that is no stablecoin has to allow.
const spendControls = { allowedAssets: [{ network: "eip155:1729", asset: address, maxAmountPerPayment: `${10n ** 18n}` }] };
const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:1729", client: new ExactEvmScheme(payer) }], spendControls });
const inputs = [{ name: "image", shape: [1, 1, 8, 8], datatype: "FP32", data: digit.pixels.map((p) => p / 16) }];
const answer = await pay(`${url}/v2/models/isobit%2Fdigits-cnn/infer`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ inputs }) });
check("answered", answer.status === 200);
const scores = (await answer.json()).outputs[0].data;
check("the digit", scores.indexOf(Math.max(...scores)) === digit.label);
const paid = decodePaymentResponseHeader(answer.headers.get("PAYMENT-RESPONSE"));
check("paid", paid.success && paid.payer.toLowerCase() === payer.address.toLowerCase());
check("no coins", (await reader.getBalance({ address: payer.address })) === 0n);
done("@x402/fetch");
