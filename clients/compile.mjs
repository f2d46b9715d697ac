// Compiles the contracts: contracts/artifacts/NAME.json has ABI and bytecode. `--check` compares instead of writing.
import { readFileSync, readdirSync, writeFileSync, existsSync } from "node:fs";
import { join, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const root = join(dirname(fileURLToPath(import.meta.url)), "../contracts");
const sources = {};
for (const folder of ["src", "examples"])
  for (const file of readdirSync(join(root, folder)).filter((f) => f.endsWith(".sol")))
    sources[`${folder}/${file}`] = { content: readFileSync(join(root, folder, file), "utf8") };
const input = {
  language: "Solidity",
  sources,
  settings: {
    evmVersion: "cancun",
    viaIR: true,
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "devdoc", "userdoc"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const errors = (output.errors ?? []).filter((e) => e.severity === "error");
for (const e of output.errors ?? []) console.error(e.formattedMessage);
if (errors.length) process.exit(1);
let differ = 0;
for (const contracts of Object.values(output.contracts))
  for (const [name, c] of Object.entries(contracts)) {
    const path = join(root, "artifacts", `${name}.json`);
    const codes = { bytecode: `0x${c.evm.bytecode.object}`, deployedBytecode: `0x${c.evm.deployedBytecode.object}` };
    const text = JSON.stringify({ abi: c.abi, ...codes }, null, 1) + "\n";
    if (process.argv.includes("--check")) {
      if (!existsSync(path) || readFileSync(path, "utf8") !== text) {
        console.error(`${path} is not what the sources compile to; run node compile.mjs`);
        differ++;
      }
    } else writeFileSync(path, text);
  }
console.log(`${solc.version()}: ${differ ? "artifacts differ" : "artifacts are up to date"}`);
process.exit(differ ? 1 : 0);
