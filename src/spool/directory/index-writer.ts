/**
 * Writes changes into the queue index: those of one turn of the event loop share one transaction, and so one sync.
 *
 * Promises: a change that the index does not take (disk full, an error of the disk) is kept in memory, in order, and tried
 * again until it is taken. Meanwhile its message is still in hand: it is neither lost nor given out a second time.
 */
import type { SpoolFault } from "../spool.ts";
import { indexFault } from "./fault.ts";
import type { IndexChange, QueueIndex } from "./queue-index.ts";

interface Entry {
  readonly change: IndexChange;
  /** Called once, when the change is on stable storage. */
  readonly onWritten: () => void;
  /** Called once, when it is settled whether it has been written at the first attempt. */
  readonly onTried: () => void;
}

export class IndexWriter {
  readonly #index: QueueIndex;
  readonly #onFault: (fault: SpoolFault) => void;
  #waiting: Entry[] = [];
  #kept: Entry[] = [];
  #fault: SpoolFault | undefined;

  /** @param onFault told when changes begin to be kept. */
  constructor(index: QueueIndex, onFault: (fault: SpoolFault) => void) {
    this.#index = index;
    this.#onFault = onFault;
  }

  /** Resolves when the change has been written, or could not be and is kept. Never rejects. */
  write(change: IndexChange, onWritten: () => void = () => undefined): Promise<void> {
    return new Promise((resolve) => {
      if (this.#waiting.length === 0) setImmediate(() => this.#turn());
      this.#waiting.push({ change, onWritten, onTried: resolve });
    });
  }

  /** Is something kept because there is no room for it? */
  get lacksRoom(): boolean {
    return this.#kept.length > 0 && this.#fault?.kind === "full";
  }

  /** Writes what is kept; throws a SpoolFault if that is still not possible. */
  flush(): void {
    if (this.#kept.length > 0) this.#write(this.#kept.splice(0));
  }

  /** At the end: writes whatever there is. */
  close(): void {
    this.#turn();
    this.flush();
  }

  #turn(): void {
    const entries = this.#waiting.splice(0);
    if (entries.length === 0) return;
    const wasWell = this.#kept.length === 0;
    try {
      this.#write([...this.#kept.splice(0), ...entries]);
    } catch (error) {
      if (wasWell) this.#onFault(indexFault(error));
    }
    for (const { onTried } of entries) onTried();
  }

  #write(entries: readonly Entry[]): void {
    const changes = entries.map(({ change }) => change);
    try {
      this.#apply(changes);
    } catch (error) {
      this.#kept = [...entries];
      this.#fault = indexFault(error);
      throw this.#fault;
    }
    for (const { onWritten } of entries) onWritten();
  }

  /** On a full disk it may be the index's own log that has no room to grow, and could be emptied. */
  #apply(changes: readonly IndexChange[]): void {
    try {
      this.#index.apply(changes);
    } catch (error) {
      if (indexFault(error).kind !== "full") throw error;
      this.#index.emptyLog();
      this.#index.apply(changes);
    }
  }
}
