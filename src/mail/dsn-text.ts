/**
 * The part of a delivery report that a person reads: what happened to which recipient, what the other side said, and
 * what the sender can do, in plain words for somebody whose mail did not arrive; and how foreign words get into a report.
 *
 * Promises: lines of at most 78 characters; foreign words stand behind `> `, without control or formatting characters.
 * Pure; never fails.
 */
import { isAscii } from "node:buffer";
import { pathText } from "./address.ts";
import type { ReportAction, ReportedRecipient, ReportRequest } from "./dsn.ts";
import { fieldBody, headerFields } from "./header.ts";
import { addressLiteral, dateTime, extendedDomain, unknownName } from "./trace.ts";

const columnsMax = 78;
const replyLinesMax = 20;
const replyCharactersMax = 1_000;
const headerBytesRead = 64 * 1024;

/** The actions with what the report says of them, the one that matters most first. */
const actions: Readonly<Record<ReportAction, { readonly subject: string; readonly lead: string }>> = {
  failed: {
    subject: "Undeliverable: your message was not delivered",
    lead: "Your message was NOT delivered to the following. It will not be tried again.",
  },
  delayed: {
    subject: "Delayed: your message has not been delivered yet",
    lead: "Your message has NOT YET been delivered to the following. It is tried again by itself.",
  },
  relayed: {
    subject: "Relayed: your message was passed on",
    lead: "Your message was passed on to a server that sends no reports. You will hear no more about:",
  },
  expanded: {
    subject: "Expanded: your message was passed to the members of a list",
    lead: "Your message was delivered to a mailing list and passed on to its members:",
  },
  delivered: { subject: "Delivered: your message has arrived", lead: "Your message was delivered to:" },
};

/** The subject of the report: the worst of what happened. */
export function subjectOf(recipients: readonly ReportedRecipient[]): string {
  const worst = Object.entries(actions).find(([action]) => recipients.some((item) => item.action === action));
  return worst?.[1].subject ?? "";
}

/** The part for a person. */
export function textPart(request: ReportRequest, utf8: boolean): Buffer {
  const { recipients, postmaster } = request;
  const about = aboutOriginal(request, utf8);
  const lines = [
    ...wrap(
      `This is an automatic report from the mail relay ${request.reportingMta} about a message that you sent. ` +
        "Recipients who are not named here are not concerned.",
    ),
    "",
    ...about,
  ];
  for (const [action, { lead }] of Object.entries(actions)) {
    const concerned = recipients.filter((item) => item.action === action);
    if (concerned.length === 0) continue;
    lines.push("", ...wrap(lead));
    for (const item of concerned) lines.push("", ...accountOf(item, utf8));
  }
  lines.push("", "What you can do:", "", ...advice(recipients).flatMap((text) => wrap(text, " - ", "   ")), "");
  lines.push(
    ...wrap(
      `If that does not help, write to ${postmaster.address}, and send all of this report along. ` +
        `Its number is ${request.reportId}.`,
    ),
  );
  const content = Buffer.from(`${lines.join("\r\n")}\r\n`);
  return mimePart(`text/plain; charset=${isAscii(content) ? "us-ascii" : "utf-8"}`, "What happened", content);
}

/** What the sender can tell the message by. */
function aboutOriginal(request: ReportRequest, utf8: boolean): string[] {
  const subject = originalField(request, "subject");
  const facts = [
    ["Subject", /=\?/.test(subject) ? "" : plainText(subject, utf8)],
    ["Message-ID", plainText(originalField(request, "message-id"), utf8)],
    ["Arrived here", dateText(request.arrivedAt) ?? ""],
  ];
  const known = facts.filter(([, value]) => value !== "");
  return known.flatMap(([name, value]) => wrap(value?.slice(0, 300) ?? "", `  ${name}: `.padEnd(16), " ".repeat(16)));
}

function accountOf(item: ReportedRecipient, utf8: boolean): string[] {
  const until = item.action === "delayed" ? dateText(item.retryUntil) : undefined;
  const words = replyLines(item, utf8);
  return [
    ...wrap(`<${pathText(item.recipient.path)}>`, "  ", "    "),
    ...wrap(`${plainText(item.explanation, utf8)} (status ${statusOf(item)})`, "    "),
    ...(until === undefined ? [] : wrap(`It is tried again until ${until}.`, "    ")),
    ...(words.length === 0 ? [] : wrap(`The server ${remoteName(item) ?? "there"} said:`, "    ")),
    ...words.flatMap((line) => wrap(line, "    > ")),
  ];
}

/** What the sender can do, each thing once. */
function advice(recipients: readonly ReportedRecipient[]): string[] {
  return [...new Set(recipients.map((item) => adviceFor(item)))];
}

function adviceFor(item: ReportedRecipient): string {
  if (item.action === "delayed") return adviceOnDelay;
  if (item.action !== "failed") return "Nothing: this report was asked for when the message was sent.";
  const [, subject = "", detail] = statusOf(item).split(".");
  // 5.2.3 and 5.3.4 are about size, whatever else their subjects are about.
  const isSize = (subject === "2" && detail === "3") || (subject === "3" && detail === "4");
  return (isSize ? adviceOnSize : adviceBySubject.get(subject)) ?? adviceOnFailure;
}

const adviceOnDelay =
  "Nothing is needed yet. Do not send the message again, or it arrives twice. " +
  "If it is urgent, reach the recipient by other means.";
const adviceOnSize =
  "The message is too large for the receiving side: send it without attachments, or in smaller pieces.";
const adviceOnFailure =
  "Show this report to those who look after your mail: what the server said tells them what to correct.";
const adviceOnOutage =
  "The receiving side was not working or not reachable: send the message again later, " +
  "and if it is urgent, reach the recipient by other means.";

/** By the second number of the status (RFC 3463 §3). */
const adviceBySubject: ReadonlyMap<string, string> = new Map([
  ["1", "Check the spelling of the address, or ask the recipient for it by other means; then send the message again."],
  ["2", "The mailbox takes no mail at present: tell the recipient by other means, and send the message again later."],
  ["3", adviceOnOutage],
  ["4", adviceOnOutage],
  ["6", "The receiving side cannot handle the form of the message: send it again as plain text."],
  [
    "7",
    "The rules of the receiving side do not allow the message: ask the recipient, or the postmaster named below, " +
      "whether you may write to this address.",
  ],
]);

/** A part of the report, its content given as CRLF lines. */
export function mimePart(type: string, description: string, content: Buffer): Buffer {
  const encoding = isAscii(content) ? "7bit" : "8bit";
  const header = [
    `Content-Type: ${type}`,
    `Content-Description: ${description}`,
    `Content-Transfer-Encoding: ${encoding}`,
  ];
  return Buffer.concat([Buffer.from(`${header.join("\r\n")}\r\n\r\n`), content]);
}

/** The body of a field of the reported message, as UTF-8; "" if there is none. */
export function originalField(request: ReportRequest, name: string): string {
  const block = request.original.header.subarray(0, headerBytesRead);
  const field = headerFields(block).find((candidate) => candidate.name === name);
  return field === undefined ? "" : Buffer.from(fieldBody(block, field), "latin1").toString();
}

/** The name of the server that did it, as it may stand in a report. */
export function remoteName({ remote }: ReportedRecipient): string | undefined {
  if (remote?.name === undefined) return undefined;
  const name = addressLiteral(remote.name) ?? extendedDomain(remote.name);
  return name === unknownName ? undefined : name;
}

/** The lines of the remote's reply, without what could break out of a line. */
export function replyLines({ remote }: ReportedRecipient, utf8: boolean): string[] {
  const reply = remote?.reply ?? "";
  const lines = reply.slice(0, replyCharactersMax).split(/[\r\n\v\f\u0085\u2028\u2029]+/u);
  const plain = lines.map((line) => plainText(line, utf8).trim()).filter((line) => line !== "");
  const isCut = plain.length > replyLinesMax || reply.length > replyCharactersMax;
  return isCut ? [...plain.slice(0, replyLinesMax), "[...]"] : plain;
}

/** The status, if it is one that fits the action (RFC 3463 §2, RFC 3464 §2.3.4), else one that says no more than that. */
export function statusOf({ action, status }: ReportedRecipient): string {
  const classes = action === "failed" ? "54" : action === "delayed" ? "4" : "2";
  const isSound = /^\d\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})$/.test(status) && classes.includes(status.charAt(0));
  return isSound ? status : `${classes.charAt(0)}.0.0`;
}

/** A date in the form of header fields; undefined if there is none, or it is none. */
export function dateText(date: Date | undefined): string | undefined {
  return date === undefined || Number.isNaN(date.getTime()) ? undefined : dateTime(date);
}

/** Foreign words without control, formatting, private and unassigned characters, in ASCII unless `utf8`. */
export function plainText(text: string, utf8: boolean): string {
  const visible = text.toWellFormed().replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, " ");
  return utf8 ? visible : visible.replaceAll(/[^ -~]/gu, "?");
}

/** Lines of at most 78 characters, the first behind `first`, the others behind `rest`; longer words are broken. */
export function wrap(text: string, first = "", rest = first): string[] {
  const lines: string[] = [];
  let line = "";
  const widthMax = columnsMax - Math.max(first.length, rest.length);
  for (const word of text.split(/\s+/).flatMap((whole) => chunks(whole, widthMax))) {
    if (line === "") line = word;
    else if (line.length + 1 + word.length <= widthMax) line += ` ${word}`;
    else {
      lines.push(line);
      line = word;
    }
  }
  if (line !== "") lines.push(line);
  return lines.map((content, index) => `${index === 0 ? first : rest}${content}`);
}

function chunks(word: string, lengthMax: number): string[] {
  if (word.length <= lengthMax) return word === "" ? [] : [word];
  const pieces = [""];
  for (const character of word) {
    const last = pieces.at(-1) ?? "";
    if (last.length + character.length > lengthMax) pieces.push(character);
    else pieces[pieces.length - 1] = last + character;
  }
  return pieces;
}
