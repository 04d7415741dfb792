/**
 * What every part of the contract's suite needs: a driver's factory, and a spool that is open on all its sides.
 */
import { onTestFinished } from "vitest";
import type { DropBox, QueueAdmin, Spool } from "../../src/spool/spool.ts";
import { envelope, only, plenty } from "./tools.ts";

/** A spool that exists as long as one test. */
export interface SpoolUnderTest {
  /** Opens the receiver's side, as a receiver does at its start. */
  openDropBox(): Promise<DropBox>;
  /** Opens the deliverer's side. */
  openSpool(): Promise<Spool>;
  openAdmin(now: () => number): QueueAdmin;
  /** Changes an octet of the message's stored content. */
  damage(id: string): Promise<void>;
  /** Contents that were set aside, anywhere: do they hold these octets? */
  isKept(octets: Buffer): Promise<boolean>;
  remove(): Promise<void>;
}

export interface Opened {
  readonly under: SpoolUnderTest;
  readonly dropBox: DropBox;
  readonly spool: Spool;
  readonly admin: QueueAdmin;
  /** Ends the deliverer and starts another. What was claimed and not put back is in nobody's hand. */
  readonly reopen: () => Promise<Spool>;
}

/** What is known of a message when it is committed. */
export const facts = {
  receivedAtMs: 1,
  partner: "acme",
  toPartner: null,
  envelope: envelope(),
  session: null,
  sizeBytes: 1,
  headerBytes: 0,
  eightBit: false,
};

/** Opens a new spool on all its sides, until the test ends. */
export async function openSides(makeSpool: () => Promise<SpoolUnderTest>): Promise<Opened> {
  const under = await makeSpool();
  const spools = [await under.openSpool()];
  const dropBox = await under.openDropBox();
  const admin = under.openAdmin(() => plenty.nowMs);
  onTestFinished(async () => {
    await dropBox.close();
    admin.close();
    for (const spool of spools) await spool.close();
    await under.remove();
  });
  const first = only(spools);
  return {
    under,
    dropBox,
    spool: first,
    admin,
    reopen: async () => {
      await spools.at(-1)?.close();
      const next = await under.openSpool();
      spools.push(next);
      return next;
    },
  };
}
