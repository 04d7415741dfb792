/**
 * A configuration as `pinrelay start` takes it: each file read once, loaded, and checked as `pinrelay check` does.
 *
 * Promises: what is checked is what is written as a snapshot; all that is wrong is told at once. A reload is refused for
 * what it would make worse: what `check` finds wrong with the running configuration as well (others can read the key by now)
 * must not keep a partner from being revoked.
 */
import { changesThatNeedRestart } from "../config/change.ts";
import { loadConfig, locate } from "../config/load.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { RecordingFiles } from "../config/snapshot.ts";
import { formatProblem, type ShownProblem } from "../config/text.ts";
import type { Candidate, Loaded } from "../supervisor/supervisor.ts";
import { runCheck, type CheckResult } from "./check.ts";
import { CliError, type Output } from "./output.ts";

export interface CheckedCandidate extends Candidate {
  readonly files: RecordingFiles;
}

/** What is to be started. What `check` calls an error is one here: a key that others can read starts nothing. */
export async function firstCandidate(file: string, output: Output, now = new Date()): Promise<CheckedCandidate> {
  const files = new RecordingFiles();
  const loaded = await loadConfig(file, now, files);
  if (loaded.kind === "invalid") {
    for (const problem of loaded.problems) output.err(`${formatProblem(problem)}\n`);
    throw new CliError(2, "the configuration is invalid: correct what is listed above");
  }
  const checked = await runCheck(file, { json: false, now, files });
  if (errorsOf(checked).length === 0) return candidateOf(loaded.config, files, checked, now);
  output.err(checked.output);
  throw new CliError(2, "nothing is started: correct what is listed above");
}

/** What is to take the place of what is in force. */
export async function nextCandidate(
  file: string,
  inForce: CheckedCandidate,
  now = new Date(),
): Promise<Loaded<CheckedCandidate>> {
  const files = new RecordingFiles();
  const loaded = await loadConfig(file, now, files);
  if (loaded.kind === "invalid") {
    const errors = loaded.problems.filter(({ severity }) => severity === "error");
    return { kind: "invalid", problems: errors.map((problem) => formatProblem(problem)) };
  }
  const fixed = await restartProblems(inForce.config, loaded.config);
  if (fixed.length > 0) return { kind: "invalid", problems: fixed };
  const checked = await runCheck(file, { json: false, now, files });
  const errors = errorsOf(checked);
  const known = errors.length === 0 ? [] : errorsOf(await runCheck(file, { json: false, now, files: inForce.files }));
  const newErrors = errors.filter((error) => !known.some((other) => isSameFinding(error, other)));
  if (newErrors.length > 0) {
    return { kind: "invalid", problems: newErrors.map((problem) => formatProblem(problem)) };
  }
  return { kind: "valid", candidate: candidateOf(loaded.config, files, checked, now) };
}

/** Why the one cannot take the place of the other in a relay that runs; one line each. */
export async function restartProblems(before: RelayConfig, after: RelayConfig): Promise<string[]> {
  return Promise.all(
    changesThatNeedRestart(before, after).map(async ({ path, message }) => {
      const { file, line, keyPath } = await locate(after.file, path);
      return formatProblem({ severity: "error", file, line, keyPath, message });
    }),
  );
}

function candidateOf(
  config: RelayConfig,
  files: RecordingFiles,
  checked: CheckResult,
  loadedAt: Date,
): CheckedCandidate {
  const notable = checked.findings.filter(({ severity }) => severity === "warning" || severity === "error");
  return {
    config,
    files,
    warnings: notable.map((problem) => formatProblem(problem)),
    write: (snapshot) => files.write(snapshot, loadedAt),
  };
}

function errorsOf({ findings }: CheckResult): ShownProblem[] {
  return findings.filter(({ severity }) => severity === "error");
}

function isSameFinding(one: ShownProblem, other: ShownProblem): boolean {
  return one.file === other.file && one.keyPath === other.keyPath && one.message === other.message;
}
