/**
 * The contract of the spool as a suite: every driver must pass it. A driver gives a factory; everything else is done by the
 * interfaces of `src/spool/spool.ts`, so that nothing here knows how messages are kept.
 */
import { describeMessages } from "./contract-messages.ts";
import { describeOperator } from "./contract-operator.ts";
import type { SpoolUnderTest } from "./contract-support.ts";

export type { SpoolUnderTest };

export function describeSpool(driver: string, makeSpool: () => Promise<SpoolUnderTest>): void {
  describeMessages(driver, makeSpool);
  describeOperator(driver, makeSpool);
}
