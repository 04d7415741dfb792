/**
 * The queue index in the operator's hands: what may be changed there beside a deliverer at work, and what has to be asked of
 * it. Each call decides and changes in the transaction it is called in.
 */
import type { QueueChange } from "../spool.ts";
import { IndexReader } from "./index-reader.ts";

type Outcome = QueueChange["outcome"];

export class OperatorIndex extends IndexReader {
  /** Opens the index that a deliverer has made. Throws a SpoolFault. */
  constructor(file: string) {
    super(file, "write");
  }

  inOneTransaction(work: () => void): void {
    this.database.transaction(work);
  }

  /** A message that is not in the index is held when it comes there: no attempt is made before. */
  hold(id: string): Outcome {
    const withdrawn = this.#withdraw(id);
    const held = this.#heldState(id);
    if (held === undefined) {
      this.database.run("INSERT INTO request (message, action) VALUES (?, 'hold')", id);
      return "requested";
    }
    this.#setHeld(id, 1);
    return withdrawn || held === 0 ? "done" : "unchanged";
  }

  release(id: string, nowMs: number): Outcome {
    const withdrawn = this.#withdraw(id);
    const held = this.#heldState(id) === 1;
    if (held) {
      this.#setHeld(id, 0);
      this.#makeDue(id, nowMs);
    }
    return withdrawn || held ? "done" : "unchanged";
  }

  retry(id: string, nowMs: number): Outcome {
    return this.#heldState(id) === 0 && this.#makeDue(id, nowMs) > 0 ? "done" : "unchanged";
  }

  /** Only the deliverer may touch the files of a message, and only it can report. */
  ask(id: string, action: "remove" | "bounce"): Outcome {
    this.#withdraw(id);
    this.database.run("INSERT INTO request (message, action) VALUES (?, ?)", id, action);
    return "requested";
  }

  #withdraw(id: string): boolean {
    return this.database.run("DELETE FROM request WHERE message = ?", id) > 0;
  }

  /** Undefined: the message is not in the index. */
  #heldState(id: string): number | undefined {
    const held = this.database.get("SELECT held FROM message WHERE id = ?", id)?.["held"];
    return held === undefined ? undefined : Number(held);
  }

  #setHeld(id: string, held: 0 | 1): void {
    this.database.run("UPDATE message SET held = ? WHERE id = ?", held, id);
    this.database.run("UPDATE recipient SET held = ? WHERE message = ?", held, id);
  }

  #makeDue(id: string, nowMs: number): number {
    return this.database.run(
      "UPDATE recipient SET next_attempt_at = ?1, deferred_at = ?1 WHERE message = ?2 AND next_attempt_at > ?1",
      Math.round(nowMs),
      id,
    );
  }
}
