/** What runs out, in a table of 80 columns, in a line, and in JSON. Pure; foreign words cannot steer the terminal. */
import { isUrgent, type ExpiryItem } from "../partner/expiry.ts";
import { expiryAdvice, expiryCount, expiryEnd, expiryTitle } from "../partner/expiry-text.ts";
import { formatTable } from "./output.ts";

const columnsMax = 80;
/** Of what has time. All that has none is shown. */
const untroubledRowsMax = 20;

/** A row for each item, in their order: the most urgent first. "" for none. */
export function expiryTable(items: readonly ExpiryItem[]): string {
  if (items.length === 0) return "";
  const soon = items.filter(({ state }) => state !== "ok").length;
  const shown = items.slice(0, soon + untroubledRowsMax);
  const width = Math.max(...shown.map(({ daysLeft }) => String(daysLeft).length), "days".length);
  const rows = shown.map((item) => [
    String(item.daysLeft).padStart(width),
    item.endsAt.toISOString().slice(0, 10),
    item.state,
    expiryTitle(item),
    item.subject ?? item.file ?? "",
  ]);
  const table = formatTable(rows, ["days".padStart(width), "ends", "state", "what", "subject"], columnsMax);
  const rest = items.length - shown.length;
  return rest === 0 ? table : `${table}and ${rest} more that end later: --json shows all\n`;
}

/** `expiry: server certificate ends on 2027-01-31, in 5 days; 3 items run out soon: pinrelay check`. */
export function expiryLine(items: readonly ExpiryItem[]): string {
  const nearest = items.toSorted((a, b) => a.endsAt.getTime() - b.endsAt.getTime())[0];
  if (nearest === undefined) return "";
  const soon = expiryCount(items);
  return `expiry: ${expiryTitle(nearest)} ${expiryEnd(nearest)}${soon === undefined ? "" : `; ${soon}: pinrelay check`}\n`;
}

/** Why the answer is no; undefined: nothing is urgent. */
export function urgentText(items: readonly ExpiryItem[]): string | undefined {
  const first = items.find(isUrgent);
  return first === undefined ? undefined : `${expiryTitle(first)} ${expiryEnd(first)}: ${expiryAdvice(first)}`;
}

/** The stable form for programs: keys are added, never renamed. */
export function expiryJson({ what, partner, file, subject, pin, endsAt, daysLeft, state }: ExpiryItem): object {
  return { what, partner, file, subject, pin, endsAt: endsAt.toISOString(), daysLeft, state };
}
