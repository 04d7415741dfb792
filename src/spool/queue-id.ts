/**
 * Queue ids: 18 lower-case letters and digits that sort by time of arrival. They name files, stand in Received fields and
 * replies, and are what a postmaster reads out over the phone. Unique across restarts: 9 digits of time, 9 of chance.
 */
import { randomBytes } from "node:crypto";

const timeDigits = 9;
const chanceDigits = 9;
const idPattern = /^[0-9a-z]{18}$/;

export function newQueueId(nowMs: number): string {
  const time = Math.max(0, Math.floor(nowMs)).toString(36).padStart(timeDigits, "0").slice(-timeDigits);
  const chance = randomBytes(6).readUIntBE(0, 6).toString(36).padStart(chanceDigits, "0").slice(-chanceDigits);
  return time + chance;
}

export function isQueueId(text: string): boolean {
  return idPattern.test(text);
}
