/**
 * Is this the meta-data of a message? Asked when a message is committed and again whenever it is read: a batch comes from
 * the receiver, which talks to strangers, so the deliverer believes nothing that it says. What the one refuses to commit,
 * the other cannot find damaged. Pure.
 */
import { parseMailbox } from "../../mail/address.ts";
import { isQueueId } from "../queue-id.ts";
import type { MessageMeta } from "../spool.ts";

const textMax = 2048;
const digest = /^[0-9a-f]{64}$/;
/** Parameters of MAIL and RCPT as the client wrote them: no space and no control character can stand in them. */
const parameter = /^[^\p{Cc}\s]*$/u;
const notifyWords = new Set<unknown>(["success", "failure", "delay"]);

type Fields = Readonly<Record<string, unknown>>;

export function isMessageMeta(value: unknown): value is MessageMeta {
  return (
    isObject(value) &&
    typeof value["id"] === "string" &&
    isQueueId(value["id"]) &&
    isCount(value["receivedAtMs"]) &&
    (value["partner"] === null || isText(value["partner"])) &&
    (value["toPartner"] === null || isText(value["toPartner"])) &&
    isEnvelope(value["envelope"]) &&
    isCount(value["sizeBytes"]) &&
    isCount(value["wireBytes"]) &&
    isCount(value["headerBytes"]) &&
    value["headerBytes"] <= value["wireBytes"] &&
    typeof value["sha256"] === "string" &&
    digest.test(value["sha256"]) &&
    (value["session"] === null || isSession(value["session"])) &&
    typeof value["eightBit"] === "boolean"
  );
}

function isEnvelope(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { reversePath, recipients, body, smtpUtf8, returnContent, envelopeId } = value;
  return (
    isObject(reversePath) &&
    (reversePath["kind"] === "null" || isMailboxPath(reversePath)) &&
    Array.isArray(recipients) &&
    recipients.length > 0 &&
    recipients.every(isRecipient) &&
    (body === "7bit" || body === "8bitmime") &&
    typeof smtpUtf8 === "boolean" &&
    (returnContent === undefined || returnContent === "full" || returnContent === "headers") &&
    isParameter(envelopeId)
  );
}

function isRecipient(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { path, notify, originalRecipient } = value;
  return (
    isObject(path) &&
    (path["kind"] === "postmaster" || isMailboxPath(path)) &&
    (notify === undefined ||
      notify === "never" ||
      (Array.isArray(notify) && notify.every((word) => notifyWords.has(word)))) &&
    isParameter(originalRecipient)
  );
}

/** Parsed again: what it says of itself is what its address says. */
function isMailboxPath({ kind, mailbox }: Fields): boolean {
  if (kind !== "mailbox" || !isObject(mailbox) || typeof mailbox["address"] !== "string") return false;
  const parsed = parseMailbox(mailbox["address"], true);
  return (
    parsed.kind === "ok" &&
    parsed.value.localPart === mailbox["localPart"] &&
    parsed.value.domain === mailbox["domain"] &&
    parsed.value.internationalized === mailbox["internationalized"]
  );
}

function isSession(value: unknown): boolean {
  return (
    isObject(value) &&
    isText(value["id"]) &&
    isText(value["address"]) &&
    isText(value["helo"]) &&
    (value["tls"] === undefined || isTls(value["tls"]))
  );
}

function isTls(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { group, keyUsage } = value;
  return (
    tlsTexts.every((name) => isText(value[name])) &&
    (group === undefined || isText(group)) &&
    (keyUsage === undefined ||
      (Array.isArray(keyUsage) && keyUsage.length <= keyUsagesMax && keyUsage.every((usage) => isText(usage))))
  );
}

const tlsTexts = "version cipher certificate spki subject issuer validFrom validTo pin".split(" ");
const keyUsagesMax = 20;

function isParameter(value: unknown): boolean {
  return value === undefined || (isText(value) && parameter.test(value));
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= textMax;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}
