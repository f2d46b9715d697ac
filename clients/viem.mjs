// viem, as it comes.
import { createPublicClient, createWalletClient, defineChain, http, parseEther, webSocket, decodeEventLog } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { readFileSync } from "node:fs";
import { artifact, check, cost, digit, done, key, ledger, model, url } from "./common.mjs";

const chain = defineChain({
  id: 1729, name: "Isobit", nativeCurrency: { name: "Isobit", symbol: "ISO", decimals: 18 },
  rpcUrls: { default: { http: [url], webSocket: [url.replace("http", "ws")] } },
});
const account = privateKeyToAccount(key);
const pub = createPublicClient({ chain, transport: http(undefined, { batch: true }), pollingInterval: 200 });
const ws = createPublicClient({ chain, transport: webSocket() });
const wallet = createWalletClient({ account, chain, transport: http() });

check("chain id", (await pub.getChainId()) === 1729);
const [balance, block, gas] = await Promise.all([pub.getBalance({ address: account.address }), pub.getBlock(), pub.getGasPrice()]);
check("a batch", balance > 0n && block.number >= 0n && gas > 0n);
check("fee history", (await pub.getFeeHistory({ blockCount: 4, rewardPercentiles: [25, 75] })).baseFeePerGas.length > 0);
const hash = await wallet.sendTransaction({ to: "0x00000000000000000000000000000000000000aa", value: parseEther("0.25") });
const receipt = await pub.waitForTransactionReceipt({ hash });
check("transfer", receipt.status === "success" && receipt.type === "eip1559");
check("transaction", (await pub.getTransaction({ hash })).value === parseEther("0.25"));

const heads = [];
const unwatch = ws.watchBlocks({ onBlock: (b) => heads.push(b.number) });
const { abi, bytecode } = artifact("DigitReader");
const deployed = await pub.waitForTransactionReceipt({ hash: await wallet.deployContract({ abi, bytecode, args: [model] }) });
const address = deployed.contractAddress;
check("deployment", deployed.status === "success" && !!address);
const value = await pub.readContract({ address, abi, functionName: "price", args: [cost] });
const told = new Promise((resolve) => ws.watchContractEvent({ address, abi, eventName: "Read", onLogs: (l) => resolve(l[0]) }));
const { request, result: job } = await pub.simulateContract({ account, address, abi, functionName: "ask", args: [digit.pixels], value });
const asked = await pub.waitForTransactionReceipt({ hash: await wallet.writeContract(request) });
check("ask", asked.status === "success");
const posted = decodeEventLog({ abi: artifact("IIsobit").abi, ...asked.logs[0] });
check("the simulation knew the job", posted.eventName === "Posted" && posted.args.job === job);
const read = await told;
check("callback", read.args.job === job && Number(read.args.digit) === digit.label);
const answer = await pub.readContract({ address: ledger, abi: artifact("IIsobit").abi, functionName: "answer", args: [job] });
check("answer", answer.settled && answer.cost === cost);
const logs = await pub.getContractEvents({ address, abi, eventName: "Read", fromBlock: 0n });
check("logs", logs.length === 1 && logs[0].blockNumber > asked.blockNumber);
const filter = await pub.createEventFilter({ address, fromBlock: 0n });
check("filter", (await pub.getFilterLogs({ filter })).length === 1 && (await pub.uninstallFilter({ filter })));
try {
  await pub.estimateContractGas({ account, address, abi, functionName: "askAndRevert", args: [digit.pixels], value });
  check("it reverts", false);
} catch (e) {
  check("revert reason", /changed my mind/.test(e.message));
}
try {
  await pub.readContract({ address: ledger, abi: artifact("IIsobit").abi, functionName: "quote", args: [`0x${"11".repeat(32)}`, 1n, 0, 0n] });
  check("no such model", false);
} catch (e) {
  check("ledger's reason", /is not published; publish it first/.test(e.message));
}
const sent = (blockNumber) => pub.getBalance({ address: "0x00000000000000000000000000000000000000aa", blockNumber });
check("older states", (await sent(receipt.blockNumber)) - (await sent(receipt.blockNumber - 1n)) === parseEther("0.25"));
const early = await pub.readContract({ address: ledger, abi: artifact("IIsobit").abi, functionName: "answer", args: [job], blockNumber: asked.blockNumber });
check("no answer yet at the time", !early.settled && early.cost === 0n);
const nobody = `0x${"77".repeat(20)}`;
const override = { address: nobody, balance: 10n ** 30n, code: "0x602a60005260206000f3" };
const { data } = await pub.call({ account: nobody, to: nobody, value: 10n ** 29n, stateOverride: [override] });
check("state override", BigInt(data) === 42n);
try {
  await pub.call({ to: nobody, stateOverride: [{ address: ledger, stateDiff: [{ slot: `0x${"00".repeat(32)}`, value: `0x${"ff".repeat(32)}` }] }] });
  check("the ledger is not overridden", false);
} catch (e) {
  check("the ledger is not overridden", /cannot be overridden/.test(e.message));
}
const proof = await pub.getProof({ address: ledger, storageKeys: [`0x${"00".repeat(32)}`] });
check("proof", proof.accountProof.length > 0 && proof.balance > 0n);
check("heads over WebSocket", heads.length > 0);
unwatch();
const { version } = JSON.parse(readFileSync(new URL("./node_modules/viem/package.json", import.meta.url)));
done(`viem ${version}`);
process.exit(0);
