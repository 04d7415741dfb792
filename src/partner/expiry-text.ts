/**
 * What runs out, in words: for tables and for sentences that say what to do. Foreign words in it are as they came: who
 * shows them makes them harmless. Pure.
 */
import type { ExpiryItem, ExpiryState } from "./expiry.ts";

/** What it is and whose, in a few words: `acme: pin`. */
export function expiryTitle({ what, partner }: ExpiryItem): string {
  const name = what === "partner certificate" ? "certificate as seen" : what === "CA certificate" ? "our CA" : what;
  return partner === undefined ? name : `${partner}: ${name}`;
}

/** When it ends, or ended: `ends on 2027-01-31, in 5 days`. */
export function expiryEnd({ endsAt, daysLeft }: ExpiryItem): string {
  const day = endsAt.toISOString().slice(0, 10);
  if (daysLeft >= 0) return `ends on ${day}, ${daysLeft === 0 ? "in less than a day" : `in ${days(daysLeft)}`}`;
  // Some hours ago is one day less than none.
  const ago = -daysLeft - 1;
  return `expired on ${day}, ${ago === 0 ? "less than a day ago" : `${days(ago)} ago`}`;
}

/** What to do about it, for the operator. */
export function expiryAdvice({ what, partner, pin }: ExpiryItem): string {
  switch (what) {
    case "server certificate":
      return "renew it: partners that look at dates refuse it afterwards; the relay takes the new file by itself";
    case "issuer certificate":
      return "ask your CA for the present chain, and put it into the file behind the server's own";
    case "CA certificate":
      return "make a new one with pinrelay ca init in another folder, and sign what is still needed again";
    case "partner certificate": {
      const unless = pin?.startsWith("spki ") === true ? "unless it keeps its key " : "";
      return `ask the partner for its next certificate, and ${unless}run pinrelay partner rollover ${partner ?? "NAME"}`;
    }
    case "pin":
      return `ask the partner for its next certificate, and run pinrelay partner rollover ${partner ?? "NAME"}`;
    case "signed certificate":
      return `ask the partner for a new request, and run pinrelay partner rollover ${partner ?? "NAME"}`;
    case "trust anchor":
      return partner === undefined
        ? "put the CA's next certificate beside it into the file"
        : "ask the partner for its CA's next certificate, and put it beside this one into the file";
    case "revocation list":
      return "fetch the CA's next list into the file: mail that depends on it waits as long as it is stale";
  }
}

/** `3 items run out soon`, with how many of them are urgent; undefined: none does. */
export function expiryCount(items: readonly ExpiryItem[]): string | undefined {
  const count = (...states: readonly ExpiryState[]): number =>
    items.filter(({ state }) => states.includes(state)).length;
  const [all, past, soon] = [count("expired", "critical", "warning"), count("expired"), count("critical")];
  if (all === 0) return undefined;
  const parts = [...(past === 0 ? [] : [`${past} expired`]), ...(soon === 0 ? [] : [`${soon} critical`])];
  return `${all} ${all === 1 ? "item runs" : "items run"} out soon${parts.length === 0 ? "" : ` (${parts.join(", ")})`}`;
}

function days(count: number): string {
  return `${count} ${count === 1 ? "day" : "days"}`;
}
