/**
 * A process of its own that opens a long queue, so that its time and memory can be measured: started by
 * `long-queue.test.ts` with the spool's folder, prints one line of JSON.
 */
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { countQueue, readQueue } from "../../src/spool/directory/queue-reader.ts";

export interface Measured {
  readonly megabytesBefore: number;
  readonly startMs: number;
  readonly megabytesStarted: number;
  /** A thousand are claimed, then another thousand while they are in hand. */
  readonly claimMs: number;
  readonly claimBesideMs: number;
  readonly megabytesInHand: number;
  readonly idleClaimMs: number;
  readonly putBackMs: number;
  readonly countMs: number;
  readonly listMs: number;
  readonly listed: number;
  readonly megabytesListed: number;
}

const path = process.argv[2] ?? "";
const nowMs = 100_000_000;

function megabytes(): number {
  return Math.round(process.memoryUsage.rss() / 1024 / 1024);
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const beganAtMs = performance.now();
  const result = await work();
  return [result, Math.round((performance.now() - beganAtMs) * 10) / 10];
}

const megabytesBefore = megabytes();
const [spool, startMs] = await timed(async () => {
  const opened = await openDirectorySpool({ path, report: (problem) => console.error(problem) });
  await opened.claimNew({ nowMs: 1_000_000, countMax: 1_000 });
  return opened;
});
const megabytesStarted = megabytes();
const request = { nowMs, countMax: 1_000, busyRoutes: [] };
const [first, claimMs] = await timed(() => spool.claimDue(request));
const [second, claimBesideMs] = await timed(() => spool.claimDue(request));
const [, idleClaimMs] = await timed(() => spool.claimDue({ ...request, nowMs: 1_000_001 }));
const megabytesInHand = megabytes();
const [, putBackMs] = await timed(async () => {
  const putBacks = [...first, ...second].map((message) => {
    const deferred = message.pending.map(({ index, attempts, nextAttemptAtMs }) => ({
      index,
      attempts: attempts + 1,
      nextAttemptAtMs,
      route: "internal",
    }));
    return spool.putBack(message, { deferred, attempts: [], delayReported: false });
  });
  await Promise.all(putBacks);
});
const [, countMs] = await timed(() => countQueue(path));
const [listed, listMs] = await timed(async () => {
  let count = 0;
  for await (const entry of readQueue(path)) count += entry.recipients.length;
  return count;
});
const measured: Measured = {
  megabytesBefore,
  startMs,
  megabytesStarted,
  claimMs,
  claimBesideMs,
  megabytesInHand,
  idleClaimMs,
  putBackMs,
  countMs,
  listMs,
  listed,
  megabytesListed: megabytes(),
};
await spool.close();
console.log(JSON.stringify(measured));
