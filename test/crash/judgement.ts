/**
 * What must be found after a crash, what is found, and what is wrong with that.
 */
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import type { ClaimedMessage } from "../../src/spool/spool.ts";
import { contentOf, deliver } from "../spool/tools.ts";
import type { DiskState } from "./disk-model.ts";
import type { Event, Note } from "./recorder.ts";

interface Expected {
  readonly content: Buffer;
  readonly recipients: number;
  /** What has certainly been settled, and what has perhaps been. */
  readonly settled: Set<number>;
  readonly settling: Set<number>;
  attempts: number;
  held: boolean;
  removing: boolean;
}

export interface Knowledge {
  readonly accepted: Map<string, Expected>;
  readonly underWay: Set<string>;
}

export function knowledgeAt(events: readonly Event[], moment: number): Knowledge {
  const accepted = new Map<string, Expected>();
  const underWay = new Set<string>();
  const note = (told: Note) => {
    const known = accepted.get(told.id);
    switch (told.kind) {
      case "commit begun":
        underWay.add(told.id);
        break;
      case "accepted": {
        underWay.delete(told.id);
        const { content, recipients } = told;
        const fresh = {
          settled: new Set<number>(),
          settling: new Set<number>(),
          attempts: 0,
          held: false,
          removing: false,
        };
        accepted.set(told.id, { content, recipients, ...fresh });
        break;
      }
      case "settling":
      case "settled":
        for (const index of told.recipients) known?.[told.kind].add(index);
        break;
      case "deferred":
        if (known !== undefined) known.attempts = told.attempts;
        break;
      case "held":
      case "released":
        if (known !== undefined) known.held = told.kind === "held";
        break;
      case "removing":
        if (known !== undefined) known.removing = true;
        break;
    }
  };
  for (const event of events.slice(0, moment)) if (event.kind === "note") note(event.note);
  return { accepted, underWay };
}

interface Found {
  readonly id: string;
  readonly pending: ReadonlyMap<number, number>;
  readonly sha256: string;
  readonly held: boolean;
}

export interface Recovery {
  readonly found: readonly Found[];
  /** Messages without a content. */
  readonly damaged: readonly string[];
  readonly problems: readonly SpoolProblem[];
  readonly leftOver: readonly string[];
}

/** Builds the disk, lets a new receiver and a new deliverer loose on it, and tells what they found. */
export async function recover(state: DiskState, path: string, receiverFirst: boolean): Promise<Recovery> {
  rmSync(path, { recursive: true, force: true });
  for (const folder of ["incoming", "queue", "corrupt"])
    mkdirSync(join(path, folder), { recursive: true, mode: 0o700 });
  for (const [name, content] of state.files) writeFileSync(join(path, name), content);
  const { database, log } = state.index;
  if (database !== undefined) writeFileSync(join(path, "queue", "index.sqlite"), database);
  if (log !== undefined) writeFileSync(join(path, "queue", "index.sqlite-wal"), log);

  const problems: SpoolProblem[] = [];
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
  if (receiverFirst) await dropBox.removeLeftovers();
  const spool = await openDirectorySpool({ path, report: (problem) => problems.push(problem) });
  if (!receiverFirst) await dropBox.removeLeftovers();
  const admin = new QueueAdmin(path, () => 5_000_000_000);
  const found: Found[] = [];
  const damaged: string[] = [];
  const take = async (messages: readonly ClaimedMessage[], held: boolean) => {
    for (const message of messages) {
      let content: Buffer;
      try {
        content = await contentOf(message);
      } catch (error) {
        damaged.push(message.meta.id);
        await spool.setAside(message, String(error));
        continue;
      }
      const sha256 = createHash("sha256").update(content).digest("hex");
      const pending = new Map(message.pending.map(({ index, attempts }) => [index, attempts]));
      found.push({ id: message.meta.id, pending, sha256, held });
      await deliver(spool, message);
    }
  };
  const nowMs = 4_000_000_000;
  // Due first, as the deliverer does, and less than everything at once.
  for (let turn = 0; turn < 12; turn += 1) {
    await take(await spool.claimDue({ nowMs, countMax: 3, busyRoutes: [] }), false);
    await take(await spool.claimNew({ nowMs, countMax: turn < 2 ? 0 : 5 }), false);
  }
  await admin.release({ state: "held" });
  await take(await spool.claimDue({ nowMs: 6_000_000_000, countMax: 100, busyRoutes: [] }), true);
  admin.close();
  await dropBox.close();
  await spool.close();
  const names = [...(await readdir(join(path, "incoming"))), ...(await readdir(join(path, "queue")))];
  const corrupt = await readdir(join(path, "corrupt"));
  const files = names.filter((name) => !/^(?:lock\.sqlite|index\.sqlite|ballast)/.test(name));
  return { found, damaged, problems, leftOver: [...files, ...corrupt.map((name) => `corrupt/${name}`)] };
}

/** What is wrong with what was found; empty if nothing is. */
export function judge(
  { accepted, underWay }: Knowledge,
  { found, damaged, problems, leftOver }: Recovery,
  cause: DiskState["cause"],
  indexIsThere: boolean,
): string[] {
  const wrong: string[] = [];
  // The name of a batch may reach the disk before the name of its content does: but then it was not accepted yet.
  const isExcused = damaged.length > 0 && cause === "power" && damaged.every((id) => underWay.has(id));
  if (damaged.length > 0 && !isExcused) wrong.push(`damaged: ${damaged.join()}`);
  const badProblems = problems.filter(({ kind }) => !(isExcused && kind === "damaged"));
  const badFiles = leftOver.filter((name) => !(isExcused && name.startsWith("corrupt/")));
  if (badProblems.length > 0) wrong.push(`problems: ${JSON.stringify(badProblems)}`);
  if (badFiles.length > 0) wrong.push(`left over: ${badFiles.join()}`);
  const seen = new Set<string>();
  for (const { id, pending, sha256, held } of found) {
    if (seen.has(id)) wrong.push(`${id} is there twice`);
    seen.add(id);
    const known = accepted.get(id);
    if (known === undefined) {
      if (!underWay.has(id)) wrong.push(`${id} was never committed, and is there`);
      continue;
    }
    if (sha256 !== createHash("sha256").update(known.content).digest("hex")) wrong.push(`${id} has another content`);
    const extra = [...pending.keys()].filter((index) => known.settled.has(index));
    // A mark is written at once and not synced: only a loss of power may lose it.
    if (extra.length > 0 && cause === "kill") wrong.push(`${id} is tried again for ${extra.join()}, which are settled`);
    if (known.held && !held && indexIsThere) wrong.push(`${id} is held, and is given out`);
    if (indexIsThere && [...pending.values()].some((attempts) => attempts < known.attempts))
      wrong.push(`${id} has forgotten its attempts`);
  }
  for (const [id, { recipients, settling, removing }] of accepted) {
    const left = Array.from({ length: recipients }, (_, index) => index).filter((index) => !settling.has(index));
    const pending = found.find((message) => message.id === id)?.pending;
    const lost = left.filter((index) => pending?.has(index) !== true);
    if (lost.length > 0 && !removing) wrong.push(`${id} is lost for recipients ${lost.join()}`);
  }
  return wrong;
}
