/**
 * The operator's side of the directory driver: holds, releases, retries, removes and bounces, beside a deliverer that is at
 * work in another process.
 *
 * What stands in the index and waits is changed there. The rest (in the drop-box, in the deliverer's hand, and whatever has
 * to do with files or reports) is left as a request in the index: the deliverer honours it before it tries the message
 * again, and in the transaction in which the message comes into the index, so that no request falls between the two.
 * Fails with SpoolFault.
 */
import {
  SpoolFault,
  type QueueAdmin as QueueAdminContract,
  type QueueChange,
  type QueueDetails,
  type QueueEntry,
  type QueueSelection,
} from "../spool.ts";
import { spoolFolders } from "./folders.ts";
import { indexFile } from "./open-index.ts";
import { OperatorIndex } from "./operator-index.ts";
import { ifMade, readMessage, readQueue } from "./queue-reader.ts";

/** Messages of one transaction: the deliverer waits for it. */
const changesMax = 200;

type Change = (index: OperatorIndex, id: string) => QueueChange["outcome"];

export class QueueAdmin implements QueueAdminContract {
  readonly #path: string;
  readonly #now: () => number;
  #index: OperatorIndex | undefined;

  /** @param path the spool's folder. */
  constructor(path: string, now: () => number = Date.now) {
    this.#path = path;
    this.#now = now;
  }

  list(selection: QueueSelection = {}): AsyncIterable<QueueEntry> {
    return readQueue(this.#path, selection);
  }

  show(id: string): Promise<QueueDetails | undefined> {
    return readMessage(this.#path, id);
  }

  hold(selection: QueueSelection): Promise<QueueChange[]> {
    return this.#change(selection, (index, id) => index.hold(id));
  }

  release(selection: QueueSelection): Promise<QueueChange[]> {
    return this.#change(selection, (index, id) => index.release(id, this.#now()));
  }

  retry(selection: QueueSelection): Promise<QueueChange[]> {
    return this.#change(selection, (index, id) => index.retry(id, this.#now()));
  }

  remove(selection: QueueSelection): Promise<QueueChange[]> {
    return this.#change(selection, (index, id) => index.ask(id, "remove"));
  }

  bounce(selection: QueueSelection): Promise<QueueChange[]> {
    return this.#change(selection, (index, id) => index.ask(id, "bounce"));
  }

  close(): void {
    this.#index?.close();
    this.#index = undefined;
  }

  async #change(selection: QueueSelection, change: Change): Promise<QueueChange[]> {
    this.#index ??= ifMade(() => new OperatorIndex(indexFile(spoolFolders(this.#path))));
    const index = this.#index;
    if (index === undefined)
      throw new SpoolFault("io", "no deliverer has been started on this spool yet: start it first");
    const changes: QueueChange[] = [];
    let ids: string[] = [];
    const flush = () => {
      const group = ids.splice(0);
      index.inOneTransaction(() => {
        for (const id of group) changes.push({ id, outcome: change(index, id) });
      });
    };
    for await (const { meta } of this.list(selection)) {
      ids.push(meta.id);
      if (ids.length === changesMax) flush();
    }
    if (ids.length > 0) flush();
    return changes;
  }
}
