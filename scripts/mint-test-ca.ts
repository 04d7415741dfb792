#!/usr/bin/env node
/** Makes certs/: the code is that of `src/cli/mint.ts`. Run it with `npm run mint-test-ca`; `--help` tells the rest. */
import { mintTestCaCommand } from "../src/cli/mint.ts";
import { processOutput, runCommand } from "../src/cli/output.ts";

process.exitCode = await runCommand(mintTestCaCommand(processOutput), process.argv.slice(2), processOutput);
