#!/usr/bin/env node
// The command `pinrelay`. Plain JavaScript that any Node can read, so that an old one gets one clear line.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const major = Number(process.versions.node.split(".")[0]);
const runtime = here("../node_modules/.bin/node");

if (major === 24) {
  const compiled = here("../dist/cli/main.js");
  const { main } = await import(existsSync(here("../src/cli/main.ts")) ? "../src/cli/main.ts" : compiled);
  await main(process.argv.slice(2));
} else if (existsSync(here("../src/cli/main.ts")) && existsSync(runtime) && !process.env.PINRELAY_RUNTIME) {
  // A source checkout has its own Node, from the lockfile. Signals are for the relay, not for this wrapper.
  const child = spawn(runtime, process.argv.slice(1), {
    stdio: "inherit",
    env: { ...process.env, PINRELAY_RUNTIME: "1" },
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (status, signal) => {
    process.exitCode = status ?? (signal ? 1 : 2);
  });
} else {
  process.stderr.write(`pinrelay: needs Node 24 LTS, and this is ${process.version}: install Node 24\n`);
  process.exitCode = 2;
}
