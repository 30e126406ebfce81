// Command lines of the scripts in this folder: a thin, strict reading of node:util's parseArgs.
import { parseArgs } from "node:util";

/**
 * Reads `--name value` and `--flag`. Unknown names and numbers that are none end the program with the usage text.
 * @param {string} usage shown on --help and on a mistake
 * @param {{strings?: string[], numbers?: string[], flags?: string[], defaults?: object}} shape option names as written on the command line
 */
export function readOptions(usage, { strings = [], numbers = [], flags = [], defaults = {} }) {
  const options = { help: { type: "boolean" } };
  for (const name of [...strings, ...numbers]) options[name] = { type: "string" };
  for (const name of flags) options[name] = { type: "boolean" };
  let values;
  try {
    ({ values } = parseArgs({ options }));
    for (const name of numbers) {
      if (values[name] === undefined) continue;
      const number = Number(values[name]);
      if (!Number.isFinite(number) || number < 0) throw new Error(`--${name} wants a number, not "${values[name]}"`);
      values[name] = number;
    }
  } catch (mistake) {
    console.error(`${mistake.message}\n\n${usage}`);
    process.exit(2);
  }
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  return { ...defaults, ...values };
}
