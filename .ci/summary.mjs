// Reads the JSON report of vitest and prints "N passed, N failed, N skipped" as its only line on standard output.
// A test file that could not be run at all counts as one failed. Exit status: 0 only if something passed and nothing
// failed; a report that is missing or unreadable is a failure too.

import { readFileSync } from "node:fs";

const counts = { passed: 0, failed: 0, skipped: 0 };
try {
  const report = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8"));
  for (const file of report.testResults) {
    for (const { status } of file.assertionResults) {
      if (status === "passed" || status === "failed") counts[status]++;
      else counts.skipped++; // "pending", "skipped", "todo", "disabled"
    }
    const noneFailed = file.assertionResults.every(({ status }) => status !== "failed");
    if (file.status === "failed" && noneFailed) {
      counts.failed++;
      process.stderr.write(`${file.name}: ${file.message}\n`);
    }
  }
  // An error outside of any test: the runner knows of it, no test does.
  if (report.success === false && counts.failed === 0) counts.failed++;
} catch (error) {
  process.stderr.write(`no test report: ${error.message}\n`);
}

process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1;
