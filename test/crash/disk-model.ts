/**
 * The disks that a crash may leave, from the log of what was done before it.
 *
 * A process that dies leaves everything that had been done, and of what was under way either all or nothing. A machine that
 * loses its power leaves what had been synced, and of the rest whatever it likes:
 * - what was written to a file since its last sync: all, nothing, a part, or its length with zeros in it;
 * - names that were made, changed or removed since the last sync of their folder: each file's changes up to any of them. A
 *   rename is one change: the file has its old name or its new one. (ext4, XFS and btrfs keep more order than this.)
 *
 * A sync counts from the moment when it has returned, for what had been done before it began.
 */
import type { Act, Event, IndexCopy } from "./recorder.ts";

export interface DiskState {
  readonly files: ReadonlyMap<string, Buffer>;
  readonly index: IndexCopy;
  readonly cause: "kill" | "power";
}

interface Operation {
  readonly act: Act;
  readonly beganAt: number;
  readonly endedAt: number;
}

type NameAct = Extract<Act, { kind: "create" | "rename" | "unlink" }>;
type WriteAct = Extract<Act, { kind: "write" }>;

/** Picks a number below `below`. */
export type Choose = (below: number) => number;

interface FileHistory {
  /** Changes of its name and writes, each with whether a crash cannot undo it. */
  readonly names: Array<{ readonly act: NameAct; readonly fate: Fate }>;
  readonly writes: Array<{ readonly act: WriteAct; readonly fate: Fate }>;
}

/** `safe`: synced. `done`: a kill leaves it, a loss of power may not. `underWay`: either way in both. */
type Fate = "safe" | "done" | "underWay";

/** How unsynced data is left: everything, nothing, half of the last write, or zeros in place of it. */
const dataFates = ["all", "none", "torn", "zeros"] as const;
type DataFate = (typeof dataFates)[number];

/** States that a crash just before `events[moment]` may leave, no more than `countMax` of each cause. */
export function* crashStates(
  events: readonly Event[],
  moment: number,
  choose: Choose,
  countMax: number,
): Generator<DiskState> {
  const files = historiesAt(events, moment);
  const index = indexAt(events, moment);
  const all = [...files.values()];
  yield* kills(all, index, choose, countMax);
  const lengths = all.map(({ names }) => names.length - names.findLastIndex(({ fate }) => fate === "safe") - 1);
  const combinations = lengths.reduce((product, length) => Math.min(product * (length + 1), 1e6), 1);
  for (let turn = 0; turn < countMax; turn += 1) {
    // The first turns are the extremes: everything, and nothing, of names and of data.
    const names =
      turn < 2
        ? lengths
        : turn < 4
          ? lengths.map(() => 0)
          : combinations <= countMax
            ? nth(turn, lengths)
            : lengths.map((length) => choose(length + 1));
    const data: DataFate | undefined = turn < 4 ? (turn % 2 === 0 ? "all" : "none") : undefined;
    yield {
      cause: "power",
      index,
      files: build(
        all,
        (position) => names[position] ?? 0,
        () => data ?? dataFates[choose(4)] ?? "all",
        choose,
      ),
    };
  }
}

/** Nothing is lost but what is under way, each of which is done or not. */
function* kills(all: readonly FileHistory[], index: IndexCopy, choose: Choose, countMax: number): Generator<DiskState> {
  const underWay = all.flatMap(({ names, writes }) => [...names, ...writes]).filter(({ fate }) => fate === "underWay");
  const turns = underWay.length === 0 ? 1 : Math.min(countMax, 4);
  for (let turn = 0; turn < turns; turn += 1) {
    const happens = () => (turn === 0 ? true : turn === 1 ? false : choose(2) === 1);
    const settled = all.map(({ names, writes }) => ({
      names: names.filter(({ fate }) => fate !== "underWay" || happens()),
      writes: writes.filter(({ fate }) => fate !== "underWay" || happens()),
    }));
    const everything = (position: number) => settled[position]?.names.length ?? 0;
    yield { cause: "kill", index, files: build(settled, everything, () => "all", choose) };
  }
}

/** The n-th way to choose a number up to each of these lengths. */
function nth(n: number, lengths: readonly number[]): number[] {
  let rest = n;
  return lengths.map((length) => {
    const chosen = rest % (length + 1);
    rest = Math.floor(rest / (length + 1));
    return chosen;
  });
}

/** @param unsynced how many of a file's unsynced name changes have reached the disk. */
function build(
  all: readonly FileHistory[],
  unsynced: (position: number) => number,
  fateOf: () => DataFate,
  choose: Choose,
): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const [position, { names, writes }] of all.entries()) {
    const safe = names.findLastIndex(({ fate }) => fate === "safe") + 1;
    const last = names[Math.min(names.length, safe + unsynced(position)) - 1]?.act;
    if (last === undefined || last.kind === "unlink") continue;
    found.set(last.kind === "create" ? last.path : last.to, contentOf(writes, fateOf(), choose));
  }
  return found;
}

function contentOf(writes: FileHistory["writes"], fate: DataFate, choose: Choose): Buffer {
  const length = Math.max(0, ...writes.map(({ act }) => act.at + act.bytes.length));
  const content = Buffer.alloc(length);
  let end = 0;
  for (const { act, fate: kept } of writes) {
    const isSafe = kept === "safe";
    // A mark is one octet and comes one by one: any of those that are not synced may be there.
    const isMark = act.bytes.length === 1;
    const how = isSafe ? "all" : isMark && fate !== "all" && fate !== "none" ? dataFates[choose(2)] : fate;
    if (how === "none") continue;
    const bytes = how === "torn" ? act.bytes.subarray(0, choose(act.bytes.length + 1)) : act.bytes;
    if (how !== "zeros") bytes.copy(content, act.at);
    end = Math.max(end, act.at + bytes.length);
  }
  return content.subarray(0, end);
}

function historiesAt(events: readonly Event[], moment: number): Map<number, FileHistory> {
  const operations = operationsAt(events, moment);
  const syncs = operations.filter(({ act, endedAt }) => act.kind === "sync" && endedAt < moment);
  const folderSyncs = operations.filter(({ act, endedAt }) => act.kind === "syncDirectory" && endedAt < moment);
  const files = new Map<number, FileHistory>();
  for (const { act, endedAt } of operations) {
    if (act.kind === "sync" || act.kind === "syncDirectory") continue;
    const file = files.get(act.file) ?? { names: [], writes: [] };
    files.set(act.file, file);
    const isDone = endedAt < moment;
    const unsynced: Fate = isDone ? "done" : "underWay";
    if (act.kind === "write") {
      const isSafe = syncs.some(
        (sync) => sync.act.kind === "sync" && sync.act.file === act.file && endedAt < sync.beganAt,
      );
      file.writes.push({ act, fate: isSafe ? "safe" : unsynced });
    } else {
      const folders = foldersOf(act);
      const isSafe = folderSyncs.some(
        (sync) => sync.act.kind === "syncDirectory" && folders.includes(sync.act.path) && endedAt < sync.beganAt,
      );
      // What is safe makes everything safe that was done to this file's name before.
      if (isSafe) file.names.splice(0, Infinity, ...file.names.map((change) => ({ ...change, fate: "safe" as const })));
      file.names.push({ act, fate: isSafe ? "safe" : unsynced });
    }
  }
  return files;
}

function operationsAt(events: readonly Event[], moment: number): Operation[] {
  const found = new Map<number, { act: Act; beganAt: number; endedAt: number }>();
  for (const [at, event] of events.slice(0, moment).entries()) {
    if (event.kind === "begin") found.set(event.operation, { act: event.act, beganAt: at, endedAt: Infinity });
    const ended = event.kind === "end" ? found.get(event.operation) : undefined;
    if (ended !== undefined) ended.endedAt = at;
  }
  return [...found.values()];
}

function foldersOf(act: NameAct): string[] {
  const paths = act.kind === "rename" ? [act.from, act.to] : [act.path];
  return paths.map((path) => path.slice(0, path.lastIndexOf("/")));
}

/** A transaction that has returned is on stable storage; that is SQLite's promise, and not the subject of this test. */
export function indexAt(events: readonly Event[], moment: number): IndexCopy {
  const last = events.slice(0, moment).findLast((event) => event.kind === "index");
  return last?.kind === "index" ? last.copy : { database: undefined, log: undefined };
}
