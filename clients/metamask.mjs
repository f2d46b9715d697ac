// What MetaMask is made of, as it comes: its network, gas fee and transaction controllers, with a keyring of one key and a user who
// confirms everything. Only Isobit's chain is configured.
import { createRequire } from "node:module";
import { privateKeyToAccount } from "viem/accounts";
import { encodeDeployData, encodeFunctionData, decodeEventLog, decodeFunctionResult } from "viem";
import { artifact, check, cost, digit, done, key, ledger, model, url } from "./common.mjs";

// Their modules name files that node finds only the old way.
const require = createRequire(import.meta.url);
const { Messenger } = require("@metamask/messenger");
const { NetworkController, RpcEndpointType } = require("@metamask/network-controller");
const { GasFeeController } = require("@metamask/gas-fee-controller");
const { TransactionController, TransactionStatus } = require("@metamask/transaction-controller");
const { version } = require("@metamask/transaction-controller/package.json");

const account = privateKeyToAccount(key);
const chainId = "0x6c1";
const root = new Messenger({ namespace: "Wallet" });
const child = (namespace, actions = [], events = []) => {
  const messenger = new Messenger({ namespace, parent: root });
  root.delegate({ messenger, actions, events });
  return messenger;
};
const provide = (namespace, handlers) => {
  const messenger = new Messenger({ namespace, parent: root });
  for (const [name, handler] of Object.entries(handlers)) messenger.registerActionHandler(`${namespace}:${name}`, handler);
};
const selected = { id: "1", address: account.address, type: "eip155:eoa", options: {}, methods: [], scopes: ["eip155:0"], metadata: { name: "one", keyring: { type: "HD Key Tree" } } };
provide("AccountsController", {
  getSelectedAccount: () => selected,
  getState: () => ({ internalAccounts: { accounts: { 1: selected }, selectedAccount: "1" } }),
});
const confirmations = [];
provide("ApprovalController", { addRequest: async (request) => (confirmations.push(request), {}) });
provide("RemoteFeatureFlagController", { getState: () => ({ remoteFeatureFlags: {}, cacheTimestamp: 0 }) });
provide("ErrorReportingService", { captureException: (e) => console.error(e) });
provide("KeyringController", { signEip7702Authorization: async () => { throw new Error("none"); } });

const network = new NetworkController({
  messenger: child("NetworkController", ["ErrorReportingService:captureException"]),
  infuraProjectId: "0".repeat(32),
  getRpcServiceOptions: () => ({ fetch, btoa }),
  getBlockTrackerOptions: () => ({ pollingInterval: 200 }),
  state: {
    selectedNetworkClientId: "isobit",
    networksMetadata: {},
    networkConfigurationsByChainId: {
      [chainId]: {
        chainId, name: "Isobit", nativeCurrency: "ISO", blockExplorerUrls: [], defaultRpcEndpointIndex: 0,
        rpcEndpoints: [{ type: RpcEndpointType.Custom, networkClientId: "isobit", url }],
      },
    },
  },
});
await network.initializeProvider();
await network.lookupNetwork();
const metadata = network.state.networksMetadata.isobit;
check("the network is up", metadata.status === "available");
check("it has EIP-1559", metadata.EIPS[1559] === true && (await network.getEIP1559Compatibility()) === true);
const { provider, blockTracker } = network.getNetworkClientById("isobit");
const ask = (method, params = []) => provider.request({ method, params });
check("chain id", (await ask("eth_chainId")) === chainId && (await ask("net_version")) === "1729");
check("the block tracker", /^0x/.test(await blockTracker.getLatestBlock()));
check("a balance at the latest block", BigInt(await ask("eth_getBalance", [account.address, "latest"])) > 0n);
await ask("eth_notAMethod").then(() => check("no such method", false), (e) => check("no such method", e.data.code === -32601));

const gas = new GasFeeController({
  messenger: child("GasFeeController", ["NetworkController:getState", "NetworkController:getNetworkClientById", "NetworkController:getEIP1559Compatibility"], ["NetworkController:networkDidChange"]),
  getProvider: () => provider,
  getCurrentNetworkEIP1559Compatibility: () => network.getEIP1559Compatibility(),
  getCurrentNetworkLegacyGasAPICompatibility: () => false,
  getCurrentAccountEIP1559Compatibility: () => true,
  // Their service of fees knows no such chain: the controller falls back to the node's price.
  EIP1559APIEndpoint: `${url}/no-service/<chain_id>`,
});
const fees = await gas.fetchGasFeeEstimates({ networkClientId: "isobit" });
check("a gas price to go by", fees.gasEstimateType === "eth_gasPrice" && Number(fees.gasFeeEstimates.gasPrice) > 0);

const events = ["NetworkController:stateChange"];
const actions = ["AccountsController:getSelectedAccount", "AccountsController:getState", "ApprovalController:addRequest", "KeyringController:signEip7702Authorization", "NetworkController:findNetworkClientIdByChainId", "NetworkController:getNetworkClientById", "RemoteFeatureFlagController:getState"];
const wallet = new TransactionController({
  messenger: child("TransactionController", actions, events),
  disableHistory: true, disableSendFlowHistory: true, disableSwaps: true,
  getCurrentNetworkEIP1559Compatibility: () => network.getEIP1559Compatibility(),
  getCurrentAccountEIP1559Compatibility: async () => true,
  getGasFeeEstimates: (options) => gas.fetchGasFeeEstimates(options),
  getNetworkClientRegistry: () => network.getNetworkClientRegistry(),
  getNetworkState: () => network.state,
  getPermittedAccounts: async () => [account.address.toLowerCase()],
  isFirstTimeInteractionEnabled: () => false,
  isSimulationEnabled: () => false,
  incomingTransactions: { isEnabled: () => false },
  pendingTransactions: { isResubmitEnabled: () => false },
  sign: async (transaction) => transaction.sign(Buffer.from(key.slice(2), "hex")),
  transactionHistoryLimit: 40,
  hooks: {},
});

/// What a page asks for, to the receipt.
async function send(transaction) {
  const { transactionMeta, result } = await wallet.addTransaction({ from: account.address, ...transaction }, { networkClientId: "isobit", origin: "https://example.org" });
  await result;
  for (let i = 0; i < 200; i++) {
    const meta = wallet.state.transactions.find((t) => t.id === transactionMeta.id);
    if ([TransactionStatus.confirmed, TransactionStatus.failed].includes(meta.status)) return meta;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("it is still pending");
}

const paid = await send({ to: "0x00000000000000000000000000000000000000cc", value: "0x1" });
check("a transfer is confirmed", paid.status === TransactionStatus.confirmed && paid.txReceipt.status === "0x1");
check("it is of EIP-1559 with the wallet's own fees", paid.txParams.type === "0x2" && BigInt(paid.txParams.maxFeePerGas) > 0n && paid.txParams.gas === "0x5208");
check("the user was asked once", confirmations.length === 1 && confirmations[0].type === "transaction");

const { abi, bytecode } = artifact("DigitReader");
const deployed = await send({ data: encodeDeployData({ abi, bytecode, args: [model] }) });
const address = deployed.txReceipt.contractAddress;
check("a contract is deployed", deployed.status === TransactionStatus.confirmed && !!address);
const call = (to, abi, functionName, args) => ask("eth_call", [{ to, data: encodeFunctionData({ abi, functionName, args }) }, "latest"]).then((data) => decodeFunctionResult({ abi, functionName, data }));
const value = `0x${(await call(address, abi, "price", [cost])).toString(16)}`;
const asked = await send({ to: address, value, data: encodeFunctionData({ abi, functionName: "ask", args: [digit.pixels] }) });
check("a contract asks for an inference", asked.status === TransactionStatus.confirmed);
const posted = decodeEventLog({ abi: artifact("IIsobit").abi, ...asked.txReceipt.logs[0] });
let answer;
for (let i = 0; i < 100 && !answer?.settled; i++) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  answer = await call(ledger, artifact("IIsobit").abi, "answer", [posted.args.job]);
}
check("and is answered", answer.settled && answer.cost === cost);

const doomed = { to: address, value, data: encodeFunctionData({ abi, functionName: "askAndRevert", args: [digit.pixels] }) };
const { transactionMeta, result } = await wallet.addTransaction({ from: account.address, ...doomed }, { networkClientId: "isobit", origin: "https://example.org" });
await result;
check("a revert is foretold", !!transactionMeta.simulationFails);
await ask("eth_estimateGas", [{ from: account.address, ...doomed }]).then(() => check("its reason", false), (e) => check("its reason", /changed my mind/.test(e.data.message)));
const nonces = wallet.state.transactions.filter((t) => t.status === TransactionStatus.confirmed).map((t) => Number(t.txParams.nonce)).sort((a, b) => a - b);
check("nonces follow one another", nonces.length >= 3 && nonces.every((n, i) => n === nonces[0] + i));
done(`MetaMask's controllers (transactions ${version})`);
process.exit(0);
