#!/usr/bin/env node
/** `pinrelay partner enrol` from a checkout. Run it with `npm run enrol-partner -- NAME …`; `--help` tells the rest. */
import { processOutput, runCommand } from "../src/cli/output.ts";
import { partnerCommand } from "../src/cli/partner.ts";

process.exitCode = await runCommand(partnerCommand(processOutput), ["enrol", ...process.argv.slice(2)], processOutput);
