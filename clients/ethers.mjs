// ethers 6, as it comes: HTTP with batches, WebSocket, transactions of both kinds, contract, callback, errors.
import { ethers } from "ethers";
import { artifact, check, cost, digit, done, key, ledger, model, url } from "./common.mjs";

const provider = new ethers.JsonRpcProvider(url, undefined, { pollingInterval: 200 });
const wallet = new ethers.Wallet(key, provider);
check("chain id", (await provider.getNetwork()).chainId === 1729n);
check("balance", (await provider.getBalance(wallet.address)) > ethers.parseEther("1000"));
const fees = await provider.getFeeData();
check("fees", fees.maxFeePerGas > 0n && fees.gasPrice > 0n);

const to = ethers.Wallet.createRandom().address;
for (const extra of [{}, { type: 0 }, { type: 1, accessList: [] }]) {
  const before = await provider.getBalance(to);
  const sent = await wallet.sendTransaction({ to, value: ethers.parseEther("1.5"), ...extra });
  const receipt = await sent.wait();
  check(`transfer ${JSON.stringify(extra)}`, receipt.status === 1 && receipt.gasUsed === 21000n);
  check("it arrived", (await provider.getBalance(to)) === before + ethers.parseEther("1.5"));
  check("found again", (await provider.getTransaction(sent.hash)).blockNumber === receipt.blockNumber);
}
const five = await Promise.all([...Array(5)].map((_, i) => i).map(async (i) => {
  const nonce = (await wallet.getNonce("pending")) + i;
  return wallet.sendTransaction({ to, value: 1n, nonce });
}));
check("five at once", (await Promise.all(five.map((t) => t.wait()))).every((r) => r.status === 1));

const { abi, bytecode } = artifact("DigitReader");
const reader = await new ethers.ContractFactory(abi, bytecode, wallet).deploy(model);
await reader.waitForDeployment();
check("code", (await provider.getCode(await reader.getAddress())).length > 100);
const value = await reader.price(cost);
const callbackFee = 500_000n * 1_000_000_000n;
check("quote", value > 0n);

const ws = new ethers.WebSocketProvider(url.replace("http", "ws"));
const heads = [];
ws.on("block", (n) => heads.push(n));
const live = new ethers.Contract(await reader.getAddress(), abi, ws);
const told = new Promise((resolve) => live.once("Read", (...args) => resolve(args)));
await live.getDeployedCode();

const asked = await (await reader.ask(digit.pixels, { value: 2n * value })).wait();
const ask = new ethers.Contract(ledger, artifact("IIsobit").abi, wallet);
const posted = asked.logs.map((l) => ask.interface.parseLog(l)).find((l) => l?.name === "Posted");
check("posted", posted.args.requester === (await reader.getAddress()) && posted.args.model === model);
const [asker, job, read, confidence] = await told;
check("callback", asker === wallet.address && job === posted.args.job && Number(read) === digit.label);
check("confidence", confidence > 500_000n && confidence <= 1_000_000n);
const answer = await ask.answer(job);
check("answer", answer.settled && !answer.refunded && answer.cost === cost && answer.tensors.length > 80);
check("paid", answer.paid > 0n && answer.paid <= value);
check("what was not needed came back", (await provider.getBalance(await reader.getAddress())) === 2n * value - answer.paid - callbackFee);
const events = await reader.queryFilter(reader.filters.Read(wallet.address), 0);
check("log in a later block", events.length >= 1 && events.at(-1).blockNumber > asked.blockNumber);
const callback = await provider.getTransactionReceipt(events.at(-1).transactionHash);
check("callback's receipt", callback.status === 1 && callback.from === ethers.getAddress(ledger));
check("block with it", (await provider.getBlock(events.at(-1).blockNumber, true)).prefetchedTransactions.length > 0);

const before = await provider.getBalance(await reader.getAddress());
const undone = await (await reader.askAndCatch(digit.pixels, { value })).wait();
check("an inner revert unwinds escrow", undone.status === 1 && undone.logs.length === 0
  && (await provider.getBalance(await reader.getAddress())) === 0n && before > 0n);
try {
  await reader.askAndRevert(digit.pixels, { value });
  check("askAndRevert reverts", false);
} catch (e) {
  check("revert reason", e.code === "CALL_EXCEPTION" && e.reason === "changed my mind");
}
try {
  await ask.join("", { value: 1n });
  check("a small stake is refused", false);
} catch (e) {
  check("ledger's reason", /a stake of 1 base units; the least is/.test(e.reason));
}
try {
  await wallet.sendTransaction({ to, value: ethers.parseEther("100000000"), gasLimit: 21000 });
  check("too much is refused", false);
} catch (e) {
  check("insufficient funds", e.code === "INSUFFICIENT_FUNDS");
}
try {
  await provider.send("eth_notThere", []);
  check("unknown method", false);
} catch (e) {
  check("-32601", e.error?.code === -32601);
}
check("heads over WebSocket", heads.length > 0);
await ws.destroy();
provider.destroy();
done(`ethers ${ethers.version}`);
