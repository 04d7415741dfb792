/**
 * Which batch is to be read next: first those in `queue/` that a deliverer before us had taken or that we wrote ourselves,
 * then those in `incoming/`, oldest first. One that cannot be read now is put off, so that it holds up no other.
 */
import type { BatchStore } from "./batch-store.ts";

export interface BacklogItem {
  readonly name: string;
  /** Does it stand in `queue/` already? */
  readonly taken: boolean;
}

const putOffMs = 60_000;

export class Backlog {
  readonly #store: BatchStore;
  readonly #monotonicMs: () => number;
  #taken: string[] = [];
  #arrived: string[] = [];
  readonly #putOff = new Map<string, { readonly item: BacklogItem; readonly untilMs: number }>();
  /** Batches in `queue/` that have not been read to their end, with their octets. */
  readonly #unread = new Map<string, number>();

  /** @param monotonicMs a clock that is never set. */
  constructor(store: BatchStore, monotonicMs: () => number) {
    this.#store = store;
    this.#monotonicMs = monotonicMs;
  }

  /** What a deliverer before us had taken. */
  async addTaken(names: readonly string[]): Promise<void> {
    for (const name of names) this.#unread.set(name, await this.#store.sizeOf(name));
    this.#taken.push(...names);
  }

  /** A batch that we have just written ourselves. */
  addOwn(name: string, bytes: number): void {
    this.#unread.set(name, bytes);
    this.#taken.push(name);
  }

  /** Is it not known yet what is in this batch of `queue/`? */
  isUnread(name: string): boolean {
    return this.#unread.has(name);
  }

  get unreadBytes(): number {
    return this.#unread.values().reduce((sum, bytes) => sum + bytes, 0);
  }

  /** What is next without listing the drop-box. It stays next until it is `done` or `putOff`. */
  peek(): BacklogItem | undefined {
    for (const { item, untilMs } of this.#putOff.values()) {
      if (untilMs > this.#monotonicMs()) continue;
      this.#putOff.delete(item.name);
      (item.taken ? this.#taken : this.#arrived).unshift(item.name);
    }
    const [taken] = this.#taken;
    if (taken !== undefined) return { name: taken, taken: true };
    const [arrived] = this.#arrived;
    return arrived === undefined ? undefined : { name: arrived, taken: false };
  }

  /** Lists the drop-box; to be called when nothing is next. Gives whether all that was listed before has been read. */
  async list(): Promise<boolean> {
    const complete = this.#putOff.size === 0;
    this.#arrived = (await this.#store.arrived()).filter((name) => !this.#putOff.has(name));
    return complete;
  }

  /** The item that is next has been moved to `queue/`; it is still next. */
  moved(item: BacklogItem): BacklogItem {
    if (item.taken) return item;
    this.#dropFirst(item);
    this.#unread.set(item.name, 0);
    this.#taken.unshift(item.name);
    return { name: item.name, taken: true };
  }

  /** The item that was next has been read, or is gone. */
  done(item: BacklogItem): void {
    this.#dropFirst(item);
    this.#unread.delete(item.name);
  }

  /** The item that was next cannot be read now. */
  putOff(item: BacklogItem): void {
    this.#dropFirst(item);
    this.#putOff.set(item.name, { item, untilMs: this.#monotonicMs() + putOffMs });
  }

  #dropFirst({ taken }: BacklogItem): void {
    (taken ? this.#taken : this.#arrived).shift();
  }
}
