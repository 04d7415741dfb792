/**
 * The deliverer's side of the directory driver (docs/spool.md tells the states).
 *
 * Promises: what was committed to `incoming/` is given out until each recipient is settled; a second deliverer fails to
 * open; damage stays local and is reported; memory is bounded by what is claimed, not by the length of the queue; what the
 * disk does not take now is tried again, and until it is taken nothing new is claimed.
 */
import { watch as watchFolder } from "node:fs";
import { join } from "node:path";
import {
  SpoolFault,
  type ClaimedMessage,
  type ClaimRequest,
  type DropBox,
  type PutBack,
  type RecipientIndex,
  type Spool,
  type SpoolUsage,
} from "../spool.ts";
import { Arrivals } from "./arrivals.ts";
import { Backlog } from "./backlog.ts";
import { Ballast } from "./ballast.ts";
import { BatchStore } from "./batch-store.ts";
import { Custody } from "./custody.ts";
import { nodeDisk, type Disk } from "./disk.ts";
import { DirectoryDropBox } from "./drop-box.ts";
import { DueMessages } from "./due-messages.ts";
import { reasonOf, spoolFault } from "./fault.ts";
import { prepareFolders, type SpoolFolders } from "./folders.ts";
import { takeLock, type Lock } from "./lock.ts";
import { ownBatch } from "./names.ts";
import { openIndex } from "./open-index.ts";
import type { Report, SpoolProblem } from "./problem.ts";
import type { RequestedAction } from "./index-reader.ts";
import type { QueueIndex } from "./queue-index.ts";
import { recoverQueue, type RecoveryOptions } from "./recovery.ts";
import { ClaimedRecord } from "./taken-batch.ts";
import { UsagePublisher } from "./usage.ts";

export type { SpoolProblem };

export interface DirectorySpoolOptions {
  readonly path: string;
  readonly disk?: Disk;
  readonly now?: () => number;
  /** Told of damage and of what could not be done; the spool goes on. */
  readonly report: Report;
  /** Told of what was done because the operator had asked for it; not of bounces, which are the deliverer's to do. */
  readonly honoured?: (id: string, action: RequestedAction) => void;
}

const clockToleranceMs = 1_000;

interface Opened {
  readonly lock: Lock;
  readonly index: QueueIndex;
  readonly ballast: Ballast;
}

/** Opens the spool for delivery; throws a SpoolFault of kind `locked` if another deliverer has it. */
export async function openDirectorySpool(options: DirectorySpoolOptions): Promise<DirectorySpool> {
  const disk = options.disk ?? nodeDisk;
  const folders = await prepareFolders(options.path, disk);
  const ballast = new Ballast(disk, folders.queue);
  const lock = takeLock(join(folders.queue, "lock.sqlite"), "another deliverer is at work on this spool");
  let index: QueueIndex | undefined;
  try {
    const onRebuilt = (file: string, reason: string) => options.report({ kind: "index rebuilt", file, reason });
    index = await ballast.without(() => openIndex(folders, disk, onRebuilt));
    await ballast.load();
    const spool = new DirectorySpool(folders, options, { lock, index, ballast });
    await spool.recover();
    return spool;
  } catch (error) {
    index?.close();
    lock.release();
    throw spoolFault(error);
  }
}

export class DirectorySpool implements Spool {
  /** Our own reports never pass through the drop-box that the receiver can write to: they are committed to `queue/`. */
  readonly dropBox: DropBox;
  readonly #folders: SpoolFolders;
  readonly #report: Report;
  readonly #lock: Lock;
  readonly #index: QueueIndex;
  readonly #recovery: RecoveryOptions;
  readonly #backlog: Backlog;
  readonly #custody: Custody;
  readonly #arrivals: Arrivals;
  readonly #due: DueMessages;
  readonly #publisher: UsagePublisher;
  #publishingFailed = false;
  #timeIsKnown = false;
  #claiming: Promise<unknown> = Promise.resolve();
  #onHint: () => void = () => undefined;
  #closed = false;

  constructor(folders: SpoolFolders, options: DirectorySpoolOptions, { lock, index, ballast }: Opened) {
    const { disk = nodeDisk, now = Date.now, report, honoured = () => undefined } = options;
    this.#folders = folders;
    this.#report = report;
    this.#lock = lock;
    this.#index = index;
    const store = new BatchStore(disk, folders, (file, reason) => report({ kind: "damaged", file, reason }));
    const backlog = new Backlog(store, () => performance.now());
    const isUnread = (batch: string) => backlog.isUnread(batch);
    const custody = new Custody({ disk, store, index, report, ballast, isUnread });
    this.#recovery = { disk, folders, store, index };
    this.#backlog = backlog;
    this.#custody = custody;
    this.#arrivals = new Arrivals({ store, index, custody, backlog, report, honoured });
    this.#due = new DueMessages({ store, index, custody, report, honoured });
    this.#publisher = new UsagePublisher(folders.root);
    this.dropBox = new DirectoryDropBox({
      directory: folders.queue,
      disk,
      now,
      nameBatch: ownBatch,
      onCommitted: ({ name, bytes }) => {
        backlog.addOwn(name, bytes);
        this.#onHint();
      },
    });
  }

  /** Finds what a deliverer before us had taken and not finished; batches that were examined are not read. */
  async recover(): Promise<void> {
    await this.#backlog.addTaken(await recoverQueue(this.#recovery));
    // Settled to the last message, and not cleared away.
    const idle = this.#index.idleBatches().filter((name) => !this.#backlog.isUnread(name));
    await Promise.all(idle.map((name) => this.#custody.finishBatch(this.#custody.batch(name))));
  }

  claimNew({ nowMs, countMax }: ClaimRequest): Promise<ClaimedMessage[]> {
    return this.#inTurn(nowMs, () => this.#arrivals.claim(countMax));
  }

  claimDue(request: ClaimRequest & { readonly busyRoutes: readonly string[] }): Promise<ClaimedMessage[]> {
    const { nowMs, countMax, busyRoutes } = request;
    return this.#inTurn(nowMs, () => this.#due.claim(nowMs, countMax, busyRoutes));
  }

  settle(message: ClaimedMessage, recipients: readonly RecipientIndex[], state: "delivered" | "failed"): void {
    this.#custody.mark(claimed(message), recipients, state === "delivered" ? "D" : "F");
  }

  async putBack(message: ClaimedMessage, putBack: PutBack): Promise<void> {
    await this.#custody.putBack(claimed(message), putBack);
  }

  async setAside(message: ClaimedMessage, reason: string): Promise<void> {
    await this.#custody.setAside(claimed(message), reason);
  }

  nextDueAtMs(): number | undefined {
    return this.#index.nextDueAtMs();
  }

  usage(): SpoolUsage {
    return this.#custody.usage(this.#backlog.unreadBytes);
  }

  watch(onHint: () => void): { close(): void } {
    this.#onHint = onHint;
    try {
      const watcher = watchFolder(this.#folders.incoming, () => onHint());
      watcher.on("error", () => watcher.close()); // only a hint: the deliverer scans in any case
      return watcher;
    } catch {
      return { close: () => undefined }; // the system has no watches left
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#claiming;
    await this.dropBox.close();
    await this.#custody.close();
    this.#index.close();
    this.#lock.release();
  }

  /** One claim at a time; first what is owed to the disk. */
  #inTurn<T>(nowMs: number, claim: () => Promise<T>): Promise<T> {
    const turn = this.#claiming.then(async () => {
      if (this.#closed) throw new SpoolFault("closed", "the spool is closed");
      await this.#custody.payDebts();
      this.#noteTime(nowMs);
      await this.#publishUsage();
      return claim();
    });
    this.#claiming = turn.catch(() => undefined); // whoever asked hears of it
    return turn;
  }

  /** Waits are counted by the clock of whoever claims. When it has been set back, they could last for years. */
  #noteTime(nowMs: number): void {
    if (!this.#timeIsKnown || nowMs < this.#custody.nowMs - clockToleranceMs) {
      const moved = this.#index.moveWaits(nowMs + clockToleranceMs, nowMs);
      const reason = `${moved} recipients begin to wait now`;
      if (moved > 0) this.#report({ kind: "clock set back", file: this.#folders.queue, reason });
    }
    this.#timeIsKnown = true;
    this.#custody.nowMs = nowMs;
  }

  async #publishUsage(): Promise<void> {
    try {
      await this.#publisher.publish(() => this.usage(), performance.now());
      this.#publishingFailed = false;
    } catch (error) {
      const reason = `quotas are counted without it: ${reasonOf(error)}`;
      if (!this.#publishingFailed) this.#report({ kind: "not written", file: this.#folders.root, reason });
      this.#publishingFailed = true;
    }
  }
}

function claimed(message: ClaimedMessage): ClaimedRecord {
  if (!(message instanceof ClaimedRecord)) throw new TypeError("the message was claimed from another spool");
  if (!message.isClaimed) throw new Error(`message ${message.meta.id} has been put back already`);
  return message;
}
