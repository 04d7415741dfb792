/**
 * What a tree of processes has cost: CPU seconds, of ended children too, and memory (PSS: shared pages counted once).
 * Linux only, from /proc.
 */
import { readdirSync, readFileSync } from "node:fs";

/** getconf CLK_TCK is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

interface Stat {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly cpuTicks: number;
}

/** Processes below `root`, itself among them, and those of its process group (Postfix's daemons are children of master). */
function tree(root: number): Stat[] {
  const all = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? (readStat(Number(name)) ?? []) : []));
  const found = new Set([root]);
  for (let grown = true; grown;) {
    grown = false;
    for (const { pid, parent } of all) {
      if (found.has(parent) && !found.has(pid)) {
        found.add(pid);
        grown = true;
      }
    }
  }
  return all.filter(({ pid }) => found.has(pid));
}

function readStat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number);
    const [, parent = 0, group = 0] = fields;
    // utime, stime, and those of children that were waited for: fields 14 to 17 of proc(5).
    const cpuTicks = fields.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0);
    return { pid, parent, group, cpuTicks };
  } catch {
    return undefined; // ended meanwhile
  }
}

export function cpuSeconds(root: number): number {
  return tree(root).reduce((sum, { cpuTicks }) => sum + cpuTicks, 0) / ticksPerSecond;
}

export function pssMiB(root: number): number {
  return tree(root).reduce((sum, { pid }) => sum + pssOf(pid), 0) / 1024;
}

function pssOf(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "latin1"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
