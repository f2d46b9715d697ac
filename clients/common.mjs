// What the JavaScript clients share: the chain to talk to, the contract, the image.
import { readFileSync } from "node:fs";
import { join, dirname } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const url = process.env.ISOBIT_URL;
export const key = process.env.ISOBIT_KEY_HEX;
export const model = process.env.ISOBIT_MODEL;
export const ledger = "0x0000000000000000000000000000000000150b17";
export const artifact = (name) => JSON.parse(readFileSync(join(here, `../contracts/artifacts/${name}.json`)));
export const digit = JSON.parse(readFileSync(join(here, "digit.json")));
export const cost = 614_210n;

/// A named check; the first that fails ends the program.
let count = 0;
export function check(what, holds) {
  if (!holds) {
    console.error(`FAILED: ${what}`);
    process.exit(1);
  }
  count++;
}
export const done = (who) => console.log(`${who}: ${count} checks hold`);
