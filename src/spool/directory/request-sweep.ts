/**
 * Forgets what the operator asked for messages that have left the queue before it could be done. A message for which
 * something was asked stood in the drop-box or was in hand; when all of that has been read and the message is neither in the
 * index nor in hand, it has been delivered.
 */
import type { QueueIndex } from "./queue-index.ts";

export class RequestSweep {
  readonly #index: QueueIndex;
  readonly #isInHand: (id: string) => boolean;
  #suspects: readonly string[] = [];

  constructor(index: QueueIndex, isInHand: (id: string) => boolean) {
    this.#index = index;
    this.#isInHand = isInHand;
  }

  /** @param list lists the drop-box, and gives whether all that was listed before has been read. */
  async around(list: () => Promise<boolean>): Promise<void> {
    const strays = this.#strays();
    if (!(await list())) return;
    const before = new Set(this.#suspects);
    for (const id of strays) if (before.has(id)) this.#index.forgetRequest(id);
    this.#suspects = strays.filter((id) => !before.has(id));
  }

  #strays(): string[] {
    return this.#index.strayRequests().filter((id) => !this.#isInHand(id));
  }
}
