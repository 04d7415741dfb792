/**
 * A partner's pins on one line of time: each a bar from its beginning to its end, with what was seen of it, and where now
 * is. Pure. Promises: 80 columns, whatever the names and dates are; what lies far off is cut and has an arrow.
 */
import type { Partner } from "../partner/partner.ts";
import type { PinState } from "../partner/pin.ts";
import { pinRecord, pinTitle, retiresAt, type PinHistory, type PinUse } from "../partner/rollover.ts";
import { dayOf } from "./certificate-text.ts";
import { fitText } from "./output.ts";

export interface TimelineBar {
  readonly title: string;
  readonly state: PinState;
  /** Undefined: without a beginning, or end, that is known. */
  readonly from: Date | undefined;
  readonly to: Date | undefined;
  readonly firstSeen: Date | undefined;
  readonly lastSeen: Date | undefined;
  readonly retires: Date | undefined;
}

/** A pin's window is its own dates; where it has none, those of the certificate as last seen. */
export function timelineBars(partner: Partner, uses: readonly PinUse[], history: PinHistory): TimelineBar[] {
  return partner.pins.map((pin) => {
    const { certificate, ends, firstSeen, lastSeen } = pinRecord(partner, pin, uses);
    return {
      title: pinTitle(pin),
      state: pin.state,
      from: pin.notBefore ?? certificate?.validFromDate,
      to: ends,
      firstSeen,
      lastSeen,
      retires: retiresAt(partner, pin, history),
    };
  });
}

const columnsMax = 80;
/** A label as `enrol` and `rollover` make it, with its date. */
const titleColumns = 21;
const stateColumns = 8;
/** What is before the bars: the indent, and two gaps. */
const headColumns = 2 + titleColumns + 1 + stateColumns + 1;
const barColumns = columnsMax - headColumns;
const dayMs = 86_400_000;
/** A certificate of a hundred years would leave no room for the weeks that matter. */
const reachMs = 400 * dayMs;

/** The bars, one a line, below the dates of both ends, above a mark for now and what the letters mean. */
export function drawTimeline(bars: readonly TimelineBar[], now: Date): string {
  const scale = scaleOf(bars, now);
  const lines = [
    `${" ".repeat(headColumns)}${dayOf(new Date(scale.fromMs)).padEnd(barColumns - 10)}${dayOf(new Date(scale.toMs))}`,
    ...bars.map(
      (bar) => `  ${fitText(bar.title, titleColumns)} ${bar.state.padEnd(stateColumns)} ${barText(bar, scale)}`,
    ),
    nowLine(columnOf(now, scale), now),
    "  F first seen, L last seen, R retires; ═ counts, ┄ does not; ◄ ► goes on",
  ];
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

interface Scale {
  readonly fromMs: number;
  readonly toMs: number;
}

function scaleOf(bars: readonly TimelineBar[], now: Date): Scale {
  const nowMs = now.getTime();
  const times = bars
    .flatMap(({ from, to, firstSeen, lastSeen, retires }) => [from, to, firstSeen, lastSeen, retires])
    .flatMap((date) => date?.getTime() ?? []);
  const inReach = times.map((ms) => Math.min(nowMs + reachMs, Math.max(nowMs - reachMs, ms)));
  // Some room on both sides of now, so that there is a line where nothing has a date.
  const fromMs = Math.min(nowMs - 30 * dayMs, ...inReach);
  const toMs = Math.max(nowMs + 30 * dayMs, ...inReach);
  return { fromMs, toMs };
}

function columnOf(date: Date, { fromMs, toMs }: Scale): number {
  const share = (date.getTime() - fromMs) / (toMs - fromMs);
  return Math.min(barColumns - 1, Math.max(0, Math.round(share * (barColumns - 1))));
}

function barText(bar: TimelineBar, scale: Scale): string {
  const cells: string[] = Array.from({ length: barColumns }, () => " ");
  const first = bar.from === undefined ? 0 : columnOf(bar.from, scale);
  const last = bar.to === undefined ? barColumns - 1 : columnOf(bar.to, scale);
  const retires = bar.retires === undefined ? barColumns : columnOf(bar.retires, scale);
  const counts = bar.state === "active" || bar.state === "next";
  for (let at = first; at <= last; at++) cells[at] = counts && at < retires ? "═" : "┄";
  cells[first] = bar.from !== undefined && bar.from.getTime() >= scale.fromMs ? "╞" : "◄";
  cells[last] = bar.to !== undefined && bar.to.getTime() <= scale.toMs ? "╡" : "►";
  // The later ones win where they fall together: what is to come matters most.
  if (bar.firstSeen !== undefined) cells[columnOf(bar.firstSeen, scale)] = "F";
  if (bar.lastSeen !== undefined) cells[columnOf(bar.lastSeen, scale)] = "L";
  if (bar.retires !== undefined) cells[retires] = "R";
  return cells.join("");
}

function nowLine(column: number, now: Date): string {
  const text = `now, ${dayOf(now)}`;
  const at = headColumns + column;
  return at + 2 + text.length <= columnsMax
    ? `${" ".repeat(at)}▲ ${text}`
    : `${" ".repeat(at - text.length - 1)}${text} ▲`;
}
