/**
 * The answer to a probe: what the relay saw of the connection that a partner's message came over, and which rules hold
 * for that partner. For the partner's postmaster, who reads it; lines are `name: value`, so that a program can, too.
 *
 * Promises: an automatic reply (RFC 3834): null reverse-path, Auto-Submitted, no report asked for, so that none answers
 * it; nothing that the partner wrote forges a field or a line. Pure; throws RangeError where `now` is no date.
 */
import { pathText, type Mailbox, type ReversePath } from "./address.ts";
import { dateText, plainText, wrap } from "./dsn-text.ts";
import { fieldBody, headerFields, replyFields } from "./header.ts";
import { composeLines, type Notice } from "./notice.ts";

export interface ProbeAnswerRequest {
  /** Unique; becomes the left side of the Message-ID. */
  readonly id: string;
  readonly hostname: string;
  readonly now: Date;
  readonly to: Mailbox;
  readonly postmaster: Mailbox;
  /** The probe's header, CRLF lines, not dot-stuffed. */
  readonly header: Buffer;
  readonly arrivedAt: Date;
  readonly reversePath: ReversePath;
  readonly partner: string;
  /** Undefined where the probe was taken by a version that did not keep it. */
  readonly session: ProbeSession | undefined;
  readonly rules: ProbeRules | undefined;
  /** It goes to our own postmaster, since nothing leads to the partner. */
  readonly instead: boolean;
}

export interface ProbeSession {
  readonly id: string;
  readonly address: string;
  readonly helo: string;
  readonly tls: ProbeTls | undefined;
}

export interface ProbeTls {
  readonly version: string;
  readonly cipher: string;
  readonly group?: string;
  readonly certificate: string;
  readonly spki: string;
  readonly subject: string;
  readonly issuer: string;
  readonly validFrom: string;
  readonly validTo: string;
  readonly keyUsage?: readonly string[];
  /** In words: what is pinned, its label and state. */
  readonly pinText: string;
}

/** The partner's rules, as its file has them. */
export interface ProbeRules {
  readonly mode: "enforce" | "observe";
  readonly senders: readonly string[];
  /** Of these, the one that let the probe's sender in; undefined for the null reverse-path and in mode observe. */
  readonly senderRule: string | undefined;
  readonly recipients: readonly string[];
  readonly limits: readonly string[];
}

/**
 * May it be answered? Not where there is nobody to answer, nor what a program wrote: two programs could keep at it for
 * ever (RFC 3834 §2, RFC 5321 §4.5.5).
 */
export function isAnswerable(reversePath: ReversePath, header: Buffer): boolean {
  return reversePath.kind === "mailbox" && !isAutomatic(header);
}

function isAutomatic(header: Buffer): boolean {
  return headerFields(header).some(
    (field) => field.name === "auto-submitted" && !/^no[\t ]*(?:[;(]|$)/i.test(fieldBody(header, field)), // RFC 3834 §5.2
  );
}

/** Composes the answer. */
export function composeProbeAnswer(request: ProbeAnswerRequest): Notice {
  const subject = `Probe of ${request.hostname}: partner ${request.partner}`;
  return composeLines({ ...request, subject }, bodyLines(request), [
    ...replyFields(originalMessageId(request.header)),
    "Auto-Submitted: auto-replied", // RFC 3834 §5
  ]);
}

function bodyLines(request: ProbeAnswerRequest): string[] {
  const { session, rules } = request;
  const instead = request.instead
    ? `The partner ${request.partner} has sent a probe. No servers are configured for mail to it (deliver), so the ` +
      "answer comes to you."
    : undefined;
  const lead =
    `The mail relay ${request.hostname} has received your probe, and knows you as its partner ${request.partner}. ` +
    "This is what it saw of your connection, and what holds for mail that you send over it.";
  return [
    ...wrap(instead ?? lead),
    ...section("Connection", connectionFacts(request)),
    ...(session?.tls === undefined ? [] : section("Your certificate", certificateFacts(session.tls))),
    ...(rules === undefined ? [] : section("What you may send", ruleFacts(request.reversePath, rules))),
    "",
    ...wrap(`If something here is not what you expect, write to ${request.postmaster.address} and send this along.`),
  ];
}

type Fact = readonly [name: string, value: string | undefined];

function connectionFacts({ arrivedAt, session }: ProbeAnswerRequest): Fact[] {
  const tls = session?.tls;
  return [
    ["Received", dateText(arrivedAt)],
    ["Session", session?.id],
    ["Address", session?.address],
    ["HELO", session?.helo],
    ["TLS version", tls?.version],
    ["Cipher", tls?.cipher],
    ["Key exchange", tls === undefined ? undefined : (tls.group ?? "not known")],
  ];
}

function certificateFacts(tls: ProbeTls): Fact[] {
  return [
    ["Subject", tls.subject],
    ["Issuer", tls.issuer],
    ["Valid from", tls.validFrom],
    ["Valid to", tls.validTo],
    ["Key (SPKI)", tls.spki],
    ["Certificate", tls.certificate],
    ["SHA-256", hexOf(tls.certificate)],
    ["Key usage", tls.keyUsage === undefined ? "any (no extension)" : tls.keyUsage.map(usageText).join(", ")],
    ["Pin", tls.pinText],
  ];
}

function ruleFacts(reversePath: ReversePath, rules: ProbeRules): Fact[] {
  return [
    ["Sender", reversePath.kind === "null" ? "<>" : `<${pathText(reversePath)}>`],
    ["Allowed by", rules.senderRule],
    ["Mode", rules.mode === "enforce" ? "enforce" : "observe: what the rules would refuse is let through, and noted"],
    ...many("Senders", rules.senders.length === 0 ? ["none but the null reverse-path"] : rules.senders),
    ...many("Recipients", rules.recipients),
    ...many("Limits", rules.limits),
  ];
}

const listedMax = 100;

function many(name: string, values: readonly string[]): Fact[] {
  const rest = values.length - listedMax;
  return [...values.slice(0, listedMax), ...(rest > 0 ? [`and ${rest} more`] : [])].map((value) => [name, value]);
}

function section(title: string, facts: readonly Fact[]): string[] {
  const lines = facts.flatMap(([name, value]) =>
    value === undefined ? [] : wrap(plainText(value, true).trim() || "-", `  ${`${name}:`.padEnd(14)}`, " ".repeat(16)),
  );
  return ["", title, ...lines];
}

/** The digest as openssl prints it, on two lines. */
function hexOf(digest: string): string {
  const hex = Buffer.from(digest.replace(/^sha256\//, ""), "base64")
    .toString("hex")
    .toUpperCase();
  return (hex.match(/(?:..){1,16}/g) ?? []).map((half) => (half.match(/../g) ?? []).join(":")).join(": ");
}

function usageText(oid: string): string {
  const name = usageNames.get(oid);
  return name === undefined ? oid : name;
}

/** RFC 5280 §4.2.1.12. */
const usageNames: ReadonlyMap<string, string> = new Map([
  ["1.3.6.1.5.5.7.3.1", "serverAuth"],
  ["1.3.6.1.5.5.7.3.2", "clientAuth"],
  ["1.3.6.1.5.5.7.3.4", "emailProtection"],
  ["2.5.29.37.0", "any"],
]);

function originalMessageId(header: Buffer): string {
  const field = headerFields(header).find(({ name }) => name === "message-id");
  return field === undefined ? "" : fieldBody(header, field);
}
