/**
 * Turns among partners: whoever has much waiting gets no more turns than who has little. Pure.
 */
export class FairQueue<T> {
  readonly #waiting = new Map<string, T[]>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(partner: string, item: T): void {
    const items = this.#waiting.get(partner);
    if (items === undefined) this.#waiting.set(partner, [item]);
    else items.push(item);
    this.#length += 1;
  }

  /** The first of the partner whose turn it is. */
  take(): T | undefined {
    for (const [partner, items] of this.#waiting) {
      const item = items.shift();
      this.#waiting.delete(partner);
      // Behind all others, whose turn comes first.
      if (items.length > 0) this.#waiting.set(partner, items);
      if (item === undefined) continue;
      this.#length -= 1;
      return item;
    }
    return undefined;
  }

  takeAll(): T[] {
    const items = [...this.#waiting.values()].flat();
    this.#waiting.clear();
    this.#length = 0;
    return items;
  }
}
