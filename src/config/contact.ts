/** A partner's contact who is to be told by mail: can that be? Pure, but for what it reports. */
import { parseMailbox } from "../mail/address.ts";
import type { Route } from "../partner/partner.ts";
import type { FileReport } from "./problems.ts";

/** Whoever is told by mail must be reached by the partner's own servers: nothing else leads out. */
export function checkContact(
  contact: string | undefined,
  deliver: Route | undefined,
  isDeliverGiven: boolean,
  report: FileReport,
): void {
  const path = ["notify-contact"];
  if (!isDeliverGiven) {
    report.error(path, "needs `deliver`: without it no mail reaches the partner; remove one, or add the other");
    return;
  }
  const parsed = contact === undefined ? undefined : parseMailbox(contact, true);
  if (parsed?.kind !== "ok") {
    report.error(path, "needs `contact` to be a mail address, as mail-ops@acme.example, with nothing beside it");
  } else if (deliver !== undefined && !deliver.domains.includes(parsed.value.domain)) {
    report.error(path, `needs \`contact\` to be in one of the domains of \`deliver\`: ${parsed.value.domain} is none`);
  }
}
