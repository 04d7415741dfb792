/**
 * What single values look like: durations, sizes, names, addresses, digests, rules. Each format is the one description
 * of it: `convict` reads with it, list elements are checked with it, the JSON Schemas quote it.
 *
 * Promises: a value that is taken has exactly one meaning; one that is not is refused with what to write instead. Text
 * is never read as a number or a boolean, nor the other way round. Pure.
 */
import { isIP } from "node:net";
import { parseForwardPath, parseMailbox, type AddressFault, type Parsed, type Mailbox } from "../mail/address.ts";
import { canonicalDomain, type CanonicalDomain } from "../mail/domain.ts";
import { addressBytes, parseAddressRange, type AddressRange } from "../partner/address-range.ts";
import type { AddressRule } from "../partner/partner.ts";
import { digestOf, parseDigest, type Digest } from "../partner/pin.ts";
import type { ConfigScalar } from "./source.ts";
import { quote } from "./text.ts";

/** Why a value was refused, in words that follow its key path: `must be …`. */
export class Refused {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonSchema;
export interface JsonSchema {
  readonly [keyword: string]: JsonValue;
}

export interface Format<T> {
  readonly name: string;
  /** The JSON Schema of what may be written. Never stricter than `parse`. */
  readonly json: JsonSchema;
  /** For a choice among words: the words. */
  readonly words?: readonly string[];
  readonly parse: (value: ConfigScalar) => T | Refused;
}

/** An entry of `allow` without its place. */
export type RuleForm = AddressRule extends infer R ? (R extends AddressRule ? Omit<R, "source"> : never) : never;

const textCharactersMax = 1000;

/** Any one line of text. */
export const text: Format<string> = {
  name: "text",
  json: { type: "string" },
  parse: (value) => parseText(value, (written) => written),
};

/** A duration in milliseconds. The upper bound keeps it within what timers can hold. */
export const duration = durationUpTo(20, "duration");

/** A duration that is held against dates, as those of certificates, and against no timer. */
export const period = durationUpTo(3650, "period");

function durationUpTo(daysMax: number, name: string): Format<number> {
  return {
    name,
    json: { type: "string", pattern: "^[1-9][0-9]{0,8}[smhd]$" },
    parse(value) {
      const [, count, unit] = (typeof value === "string" && /^([1-9]\d{0,8})([smhd])$/.exec(value)) || [];
      const durationMs = Number(count) * (millisecondsPer.get(unit ?? "") ?? Number.NaN);
      if (Number.isNaN(durationMs)) return refuse("must be a duration with its unit, as 30s, 5m, 4h or 5d", value);
      return durationMs > daysMax * 86_400_000 ? refuse(`must be at most ${daysMax}d`, value) : durationMs;
    },
  };
}

const millisecondsPer = new Map([
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
]);

/** A size in bytes. */
export const size = sizeOf("size", 1, Number.MAX_SAFE_INTEGER);

/**
 * A command line with its CRLF. The least is what RFC 5321 §4.5.3.1.4 (512) and RFC 3461 §4.2 (536 for RCPT) add up to;
 * the most keeps it small beside a session.
 */
export const commandLineSize = sizeOf("command-line-size", 1048, 64 * 1024);

/** A message's header, which is held in memory. */
export const headerSize = sizeOf("header-size", 1024, 16 * 1024 ** 2);

function sizeOf(name: string, min: number, max: number): Format<number> {
  return {
    name,
    json: { type: ["integer", "string"], minimum: min, pattern: "^[1-9][0-9]{0,14}([KMGT]iB)?$" },
    parse(value) {
      const [, count, unit] = /^([1-9]\d{0,14})([KMGT]iB)?$/.exec(String(value)) ?? [];
      const bytes = Number(count) * (bytesPer.get(unit ?? "") ?? Number.NaN);
      if (typeof value === "boolean" || Number.isNaN(bytes)) {
        return refuse("must be a size above zero, as 512 (bytes), 10KiB, 25MiB or 10GiB", value);
      }
      if (bytes > Number.MAX_SAFE_INTEGER) return refuse("is larger than any disk", value);
      return bytes < min || bytes > max ? refuse(`must be from ${min} to ${max} bytes`, value) : bytes;
    },
  };
}
const bytesPer = new Map([
  ["", 1],
  ["KiB", 1024],
  ["MiB", 1024 ** 2],
  ["GiB", 1024 ** 3],
  ["TiB", 1024 ** 4],
]);

/** True or false. `yes`, `on` and words in quotes are text in YAML 1.2, and not taken for one of them. */
export const flag: Format<boolean> = {
  name: "flag",
  json: { type: "boolean" },
  parse: (value) => (typeof value === "boolean" ? value : refuse("must be true or false, without quotes", value)),
};

/** How many of something. */
export const count = integer("count", 1, 1_000_000);
/** How many of something, in a day. */
export const dailyCount = integer("daily-count", 1, 1_000_000_000);
/** A TCP port to connect to. */
export const port = integer("tcp-port", 1, 65_535);
/** A TCP port to listen on; 0 lets the system choose. */
export const listenPort = integer("listen-port", 0, 65_535);

/** One of a few words. */
export function oneOf<const W extends string>(...words: readonly W[]): Format<W> {
  return {
    name: words.join("|"),
    json: { enum: words },
    words,
    parse: (value) => words.find((word) => word === value) ?? refuse(`must be ${orList(words)}`, value),
  };
}

/** A domain name, in its canonical form. */
export const domainName: Format<CanonicalDomain> = {
  name: "domain-name",
  json: { type: "string", minLength: 1, maxLength: 256 },
  parse: (value) =>
    parseText(
      value,
      (written) => canonicalDomain(written) ?? refuse("must be a domain name, as mail.corp.example", value),
    ),
};

/** An address to listen on or to connect to: never a name. */
export const ipLiteral: Format<string> = {
  name: "ip-literal",
  json: { type: "string", minLength: 2 },
  parse: (value) =>
    typeof value === "string" && isIP(value) !== 0 ? value : refuse("must be an IP literal, as 192.0.2.1", value),
};

/** The address of a next hop. */
export const hopAddress: Format<string> = {
  name: "hop-address",
  json: { type: "string", minLength: 2 },
  parse(value) {
    if (typeof value !== "string" || isIP(value) === 0) {
      return refuse("must be an IP literal: no DNS is asked, put the name under `name`", value);
    }
    const unspecified = addressBytes(value)?.every((byte) => byte === 0) ?? false;
    return unspecified ? refuse("is an address to listen on, not one to connect to", value) : value;
  },
};

/** Addresses that a partner connects from. */
export const addressRange: Format<AddressRange> = {
  name: "address-range",
  json: { type: "string", pattern: "^(any|[0-9A-Fa-f:.]+(%[^/]+)?(/[0-9]{1,3})?)$" },
  parse: (value) =>
    parseText(value, (written) => {
      const range = parseAddressRange(written);
      if (range.kind !== "fault") return range;
      return refuse(`must be an address, a network as 192.0.2.0/28, or any (${range.fault})`, value);
    }),
};

/** The name of a file or folder; what it is relative to is the reader's to know. */
export const path: Format<string> = {
  name: "path",
  json: { type: "string", minLength: 1 },
  parse: (value) =>
    parseText(value, (written) => {
      if (written === "") return refuse("must be the path of a file or folder", value);
      return written.startsWith("~") ? refuse("must be written out: ~ has no meaning here", value) : written;
    }),
};

/** Where the console listens: a loopback address with its port, or the path of a Unix socket. */
export const consoleAddress: Format<string> = {
  name: "console-address",
  json: { type: "string", pattern: "^(.+:[0-9]{1,5}|.*/.*)$" },
  parse: (value) =>
    parseText(value, (written) => {
      if (written.includes("/")) return written;
      const [, bracketed, bare, portText] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(written) ?? [];
      const address = bracketed ?? bare ?? "";
      if (!isLoopback(address) || Number(portText) > 65_535) {
        return refuse("must be a loopback address and a port, as 127.0.0.1:8025, or the path of a Unix socket", value);
      }
      return written;
    }),
};

/** The digest of a key or certificate. */
export const digest: Format<Digest> = {
  name: "digest",
  json: {
    type: "string",
    // as parseDigest takes it: base64 with or without its prefix, or hexadecimal as openssl prints it
    pattern:
      "^\\s*([Ss][Hh][Aa]256//?)?[A-Za-z0-9+/]{43}=\\s*$|^([Ss][Hh][Aa]-?256.*)?[\\s:]*([0-9A-Fa-f]{2}[\\s:]*){32}$",
  },
  parse: (value) =>
    parseText(value, (written) => {
      const parsed = parseDigest(written);
      if (parsed === undefined) {
        const wanted = "must be sha256/ and 44 characters of base64, or 64 hexadecimal digits";
        return refuse(`${wanted}; \`pinrelay partner enrol\` makes it from a certificate`, value);
      }
      // What `openssl … | openssl dgst` prints when the first command failed: it would pin nothing.
      if (parsed === digestOfNothing) return refuse("is the digest of no input: what made it has failed", value);
      return parsed;
    }),
};
const digestOfNothing = digestOf(new Uint8Array());

/** An end date, in milliseconds since 1970: a day counts until its end (UTC). */
export const endDate = date("end-date", "T23:59:59.999Z");
/** The first moment of a day (UTC), or a time, in milliseconds since 1970. */
export const startDate = date("start-date", "T00:00:00Z");

function date(name: string, timeOfDay: string): Format<number> {
  return {
    name,
    json: { type: "string", pattern: "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$" },
    parse(value) {
      const [, day, time] =
        (typeof value === "string" && /^(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}:\d{2}Z)?$/.exec(value)) || [];
      const dateMs = Date.parse(`${day}${time ?? timeOfDay}`);
      // `Date` takes 2027-02-30 for the second of March.
      const exists = !Number.isNaN(dateMs) && new Date(dateMs).toISOString().slice(0, 10) === day;
      return exists
        ? dateMs
        : refuse("must be a date, as 2027-01-31, or a time in UTC, as 2027-01-31T12:00:00Z", value);
    },
  };
}

/** An entry of `allow.from`. */
export const reversePathRule = rule("reverse-path-rule", (written) => parseMailbox(written, true));
/** An entry of `allow.to`. */
export const forwardPathRule = rule("forward-path-rule", (written): Parsed<Mailbox> => {
  const parsed = parseForwardPath(written, true);
  if (parsed.kind === "fault") return parsed;
  return parsed.value.kind === "mailbox"
    ? { kind: "ok", value: parsed.value.mailbox }
    : { kind: "fault", fault: "syntax" };
});

/** A mailbox of ours, in ASCII, so that reports to it pass every server. */
export function parseOwnMailbox(written: string): Mailbox | Refused {
  const parsed = parseMailbox(written, false);
  return parsed.kind === "ok" ? parsed.value : new Refused(`must be user@domain: ${addressFaults[parsed.fault]}`);
}

/** Does the address stay on this machine? */
export function isLoopback(address: string): boolean {
  const bytes = addressBytes(address);
  if (bytes === undefined) return false;
  return bytes.length === 4 ? bytes[0] === 127 : bytes.every((byte, index) => byte === (index === 15 ? 1 : 0));
}

/** `a, b or c`. */
export function orList(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

function rule(name: string, parse: (written: string) => Parsed<Mailbox>): Format<RuleForm> {
  return {
    name,
    json: { type: "string", pattern: "^(@(\\*\\.)?[^@*\\s]+|.+@[^@\\s]+)$" },
    parse: (value) => parseText(value, (written) => parseRule(written, parse)),
  };
}

function parseRule(written: string, parse: (written: string) => Parsed<Mailbox>): RuleForm | Refused {
  const forms = "must be user@domain, @domain or @*.domain";
  if (written.startsWith("@*.")) {
    const domain = canonicalDomain(written.slice(3));
    return domain === undefined ? refuse(forms, written) : { kind: "subdomains", text: written, domain };
  }
  if (written.startsWith("@")) {
    const domain = canonicalDomain(written.slice(1));
    return domain === undefined ? refuse(forms, written) : { kind: "domain", text: written, domain };
  }
  if (written.startsWith("*@")) return refuse(`${forms}; every address of a domain is @domain`, written);
  const parsed = parse(written);
  if (parsed.kind === "fault") return refuse(`${forms}; ${addressFaults[parsed.fault]}`, written);
  return { kind: "mailbox", text: written, mailbox: parsed.value };
}

const addressFaults: Record<AddressFault, string> = {
  syntax: "this is no mailbox",
  tooLong: "this is too long for SMTP",
  domain: "its domain is no domain name",
  addressLiteral: "mail goes by domain here, not by address",
  routing: "a local part with %, ! or @ is always refused, so the rule could never match",
  notAscii: "characters outside ASCII may not stand here",
};

function integer(name: string, min: number, max: number): Format<number> {
  return {
    name,
    json: { type: "integer", minimum: min, maximum: max },
    parse(value) {
      const inRange = typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;
      const quotes = typeof value === "string" ? ", without quotes" : "";
      return inRange ? value : refuse(`must be a whole number from ${min} to ${max}${quotes}`, value);
    },
  };
}

// eslint-disable-next-line no-control-regex -- what it refuses are control characters
const control = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u;

function parseText<T>(value: ConfigScalar, parse: (written: string) => T | Refused): T | Refused {
  if (typeof value === "number") return new Refused(`must be text: put it in quotes, as "${value}"`);
  if (typeof value !== "string") return refuse("must be text", value);
  if (value.length > textCharactersMax) return new Refused(`must be at most ${textCharactersMax} characters long`);
  if (control.test(value) || !value.isWellFormed()) return refuse("must be one line without control characters", value);
  return parse(value);
}

function refuse(message: string, value: ConfigScalar): Refused {
  if (value === null) return new Refused(`${message}; it is empty`);
  return new Refused(`${message}; it is ${typeof value === "string" ? quote(value) : value}`);
}
