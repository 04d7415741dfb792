/**
 * Turns among partners: whoever has much waiting gets no more turns than who has little. Each call costs the same however
 * much is waiting. Pure.
 */
export class FairQueue<T> {
  /** By partner, the one whose turn it is first. No queue in it is empty. */
  readonly #waiting = new Map<string, Fifo<T>>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Partners of whom something is waiting. */
  get partners(): number {
    return this.#waiting.size;
  }

  lengthOf(partner: string): number {
    return this.#waiting.get(partner)?.length ?? 0;
  }

  add(partner: string, item: T): void {
    const items = this.#waiting.get(partner) ?? new Fifo<T>();
    items.add(item);
    this.#waiting.set(partner, items);
    this.#length += 1;
  }

  /** The first of the partner whose turn it is. */
  take(): T | undefined {
    const next = this.#waiting.entries().next();
    if (next.done === true) return undefined;
    const [partner, items] = next.value;
    const item = items.take();
    this.#waiting.delete(partner);
    // Behind all others, whose turn comes first.
    if (items.length > 0) this.#waiting.set(partner, items);
    this.#length -= 1;
    return item;
  }

  takeAll(): T[] {
    const items = [...this.#waiting.values()].flatMap((waiting) => waiting.rest());
    this.#waiting.clear();
    this.#length = 0;
    return items;
  }
}

/** First in, first out: `Array.shift` would move all that is behind. */
class Fifo<T> {
  #items: T[] = [];
  #taken = 0;

  get length(): number {
    return this.#items.length - this.#taken;
  }

  add(item: T): void {
    this.#items.push(item);
  }

  take(): T | undefined {
    const item = this.#items[this.#taken];
    this.#taken += 1;
    // What was taken is dropped when it is half of all: each item is moved once on the average.
    if (this.#taken * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#taken);
      this.#taken = 0;
    }
    return item;
  }

  rest(): T[] {
    return this.#items.slice(this.#taken);
  }
}
