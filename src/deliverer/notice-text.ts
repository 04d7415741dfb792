/**
 * What the relay's notices say: to our postmaster everything that runs out and what to do, to a partner's contact what is
 * its own and nothing else. Pure.
 */
import type { Expiry } from "../config/expiry.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { NoticeParagraph, NoticeRequest } from "../mail/notice.ts";
import type { ExpiryItem, ExpiryState } from "../partner/expiry.ts";
import { expiryAdvice, expiryCount, expiryEnd, expiryTitle } from "../partner/expiry-text.ts";
import type { Partner } from "../partner/partner.ts";
import { spkiDigest } from "../partner/pin.ts";
import { rolloverWarningText } from "../partner/rollover.ts";
import type { Quarantined } from "../sightings/sightings.ts";

export type NoticeText = Pick<NoticeRequest, "subject" | "text">;
type Ours = Pick<RelayConfig, "hostname" | "postmaster">;

/** Of each kind of thing; the rest is a number. */
const listedMax = 100;

/** For our postmaster, once a day; undefined: nothing runs out soon. */
export function dailyNotice(
  { items, rollovers, unseen }: Expiry,
  { hostname }: Ours,
  now: Date,
): NoticeText | undefined {
  const count = expiryCount(items);
  if (count === undefined) return undefined;
  const groups: ReadonlyArray<readonly [ExpiryState, string]> = [
    ["expired", "Expired: mail that depends on it does not flow any more."],
    ["critical", "Ends within days: act now."],
    ["warning", "Ends soon:"],
  ];
  const told = groups.flatMap(([state, lead]): NoticeParagraph[] => {
    const concerned = items.filter((item) => item.state === state);
    return concerned.length === 0 ? [] : [lead, listed(concerned.map(itemText))];
  });
  const underWay = rollovers.map(
    ({ partner, warning }) => `${partner.name}: ${rolloverWarningText(warning, partner, now)}`,
  );
  return {
    subject: `${hostname}: ${count}`,
    text: [
      `This is the daily notice of the mail relay ${hostname} about what runs out. It comes as long as there is something to tell.`,
      ...told,
      ...(underWay.length === 0 ? [] : ["Changes of partners' keys that need somebody's attention:", listed(underWay)]),
      ...(unseen === undefined
        ? []
        : [`What partners' hosts showed last could not be read (it ${unseen}), and is missing here.`]),
      "pinrelay check shows all of it, with the files and lines. `expiry` in relay.yaml says from when on, and whether, this mail is sent.",
    ],
  };
}

/**
 * What a partner's contact is told: about what is the partner's own. Nothing of ours is in it but the relay's name and
 * the address of its postmaster. Undefined: nothing of the partner's runs out soon.
 */
export function contactNotice(
  partner: Partner,
  items: readonly ExpiryItem[],
  { hostname, postmaster }: Ours,
): NoticeText | undefined {
  const own = items.filter((item) => item.partner === partner.name && isPartnersOwn(item) && item.state !== "ok");
  const first = own[0];
  if (first === undefined) return undefined;
  const when = first.endsAt.toISOString().slice(0, 10);
  return {
    subject: `Your mail host's certificate for ${hostname}: ${first.state === "expired" ? "expired" : "ends"} ${when}`,
    text: [
      `This is an automatic message from the mail relay ${hostname}. It knows your mail host by its TLS client certificate, and what it knows runs out:`,
      listed(own.map(ownItemText)),
      "From then on the relay takes no mail from your host: it waits at your side, and goes back to its senders in the end.",
      "What to do:",
      [
        `Get the next certificate, and send it (without its private key) to ${postmaster.address} before your host uses it. The relay then takes both, and your host can change over at any time.`,
        ...sameKeyAdvice(own),
        `If you have done so already, or have questions, write to ${postmaster.address}.`,
      ],
      "This message comes once a day as long as that is so.",
    ],
  };
}

/** New things, told once each. */
export function eventsNotice(
  quarantined: readonly Quarantined[],
  rollovers: Expiry["rollovers"],
  { hostname }: Ours,
  now: Date,
): NoticeText {
  const parts = [
    ...(quarantined.length === 0 ? [] : [counted(quarantined.length, "unknown certificate")]),
    ...(rollovers.length === 0 ? [] : [`${counted(rollovers.length, "change of key", "changes of key")} to look at`]),
  ];
  return {
    subject: `${hostname}: ${parts.join(", ")}`,
    text: [
      ...(quarantined.length === 0
        ? []
        : [
            "Hosts at addresses of partners have shown certificates that nobody knows. Their mail waits there, and none is lost: a partner may have renewed early. Compare fingerprints over the phone before you let one in.",
            listed(quarantined.map(quarantineText)),
            "pinrelay partner list --quarantine shows them, and says how one is let in.",
          ]),
      ...(rollovers.length === 0
        ? []
        : [
            "Changes of partners' keys that need somebody's attention:",
            listed(
              rollovers.map(({ partner, warning }) => `${partner.name}: ${rolloverWarningText(warning, partner, now)}`),
            ),
          ]),
      `This is a notice of the mail relay ${hostname}. Each of these is told once.`,
    ],
  };
}

/** Is it something that the partner can, and may, hear about? */
function isPartnersOwn({ what }: ExpiryItem): boolean {
  switch (what) {
    case "partner certificate":
    case "signed certificate":
    case "pin":
      return true;
    case "server certificate":
    case "issuer certificate":
    case "CA certificate":
    case "trust anchor":
    case "revocation list":
      return false;
  }
}

function itemText(item: ExpiryItem): string {
  const subject = item.subject === undefined ? "" : ` (${item.subject})`;
  const file = item.file ?? "";
  return `${expiryTitle(item)}${subject} ${expiryEnd(item)}: ${expiryAdvice(item)}${file === "" ? "" : ` [${file}]`}`;
}

/** The title that the operator gave the pin is not for others. */
function ownItemText(item: ExpiryItem): string {
  const known = knownBy(item.pin ?? "");
  if (item.what === "pin") return `The time for which your certificate is registered (${known}) ${expiryEnd(item)}.`;
  return `Your certificate ${item.subject ?? ""} (${known}) ${expiryEnd(item)}.`;
}

/** A pin in words for its owner, by its key. */
function knownBy(pin: string): string {
  const [, kind, rest = ""] = /^(\S+) (.*)$/.exec(pin) ?? [];
  if (kind === "spki") return `SHA-256 of its public key ${rest}`;
  if (kind === "certificate") return `SHA-256 of the certificate ${rest}`;
  return `issued by your CA${/ for \S+$/.exec(rest)?.[0] ?? ""}`;
}

/** Where the relay knows more than the one certificate, a renewal may need nothing. */
function sameKeyAdvice(own: readonly ExpiryItem[]): string[] {
  if (own.some(({ what }) => what === "pin")) return [];
  if (own.every(({ pin }) => pin?.startsWith("spki ") === true)) {
    return ["A renewed certificate with the same key need not be sent: it is enough that your host uses it."];
  }
  return own.every(({ pin }) => pin?.startsWith("trust-anchor ") === true)
    ? ["A renewed certificate by the same CA in the same name need not be sent: it is enough that your host uses it."]
    : [];
}

function quarantineText({ id, certificate, addresses, partners, firstSeenMs, count }: Quarantined): string {
  // Typed as text, and undefined in a certificate without a name.
  const subject = (certificate.subject as string | undefined)?.replaceAll("\n", ", ").slice(0, 200) ?? "(no name)";
  const first = new Date(firstSeenMs).toISOString().slice(0, 16);
  return `${id} from ${addresses.join(", ")} (${partners.join(", ")}), ${subject}, key ${spkiDigest(certificate)}, first seen ${first}Z, ${counted(count, "session")}`;
}

function listed(lines: readonly string[]): readonly string[] {
  const rest = lines.length - listedMax;
  return rest <= 0 ? lines : [...lines.slice(0, listedMax), `and ${rest} more`];
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
