/** The kinds of mail servers that there is a kit for. */
import { exchange } from "./exchange.ts";
import { exim } from "./exim.ts";
import { generic } from "./generic.ts";
import { opensmtpd } from "./opensmtpd.ts";
import { postfix } from "./postfix.ts";
import { sendmail } from "./sendmail.ts";
import type { ServerKind } from "./snippet.ts";

export const serverKinds = {
  postfix,
  exim,
  opensmtpd,
  sendmail,
  exchange,
  generic,
} as const satisfies Readonly<Record<string, ServerKind>>;

export type ServerName = keyof typeof serverKinds;

export const serverNames = Object.keys(serverKinds) as ServerName[]; // exactly the keys of the literal above
