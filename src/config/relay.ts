/**
 * relay.yaml: its keys, and what they mean together.
 *
 * Promises: what is returned is complete as far as this file goes; each thing that is wrong is reported, and nothing in
 * the file is without effect unless the design says so.
 */
import { dirname, resolve } from "node:path";
import type { Mailbox } from "../mail/address.ts";
import type { CanonicalDomain } from "../mail/domain.ts";
import type { Route } from "../partner/partner.ts";
import * as format from "./formats.ts";
import { makeRelayLimits, relayLimits } from "./limits.ts";
import type { FileReport } from "./problems.ts";
import { readFileAs } from "./read.ts";
import type { ListenAddress, RelayConfig } from "./relay-config.ts";
import { makeRoute, route, type LoadContext } from "./route.ts";
import { group, list, names, optional, required, scalar, unavailable } from "./schema.ts";
import type { ConfigNode } from "./source.ts";
import { quote } from "./text.ts";

const name: format.Format<string> = {
  name: "name",
  json: { type: "string", pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" },
  parse: (value) =>
    typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value)
      ? value
      : new format.Refused("is no name: use letters, digits, dots and hyphens, at most 63"),
};

/** The keys of relay.yaml. */
export const relayKeys = group({
  doc: "The relay.",
  keys: {
    hostname: scalar({
      doc: "The name of this host: in the greeting, in Received fields and in reports.",
      format: format.domainName,
      default: required,
    }),
    listen: list({
      doc: "Where partners connect to.",
      of: group({
        doc: "One address and port.",
        keys: {
          address: scalar({
            doc: "An IP literal; 0.0.0.0 is every IPv4 address of this host, :: every address.",
            format: format.ipLiteral,
            default: required,
          }),
          port: scalar({ doc: "The port; 0 lets the system choose.", format: format.listenPort, default: 25 }),
          "implicit-tls": scalar({
            doc: "TLS from the first byte, as on port 465, in place of STARTTLS.",
            format: format.flag,
            default: false,
          }),
        },
        default: required,
      }),
      itemsMin: 1,
      default: required,
    }),
    submission: unavailable("Where internal servers hand in mail for partners. Not available in this version."),
    tls: group({
      doc: "Who we are to partners.",
      keys: {
        certificate: scalar({
          doc: "The server's certificate in PEM, with its intermediates, leaf first.",
          format: format.path,
          default: required,
        }),
        key: scalar({
          doc: "Its private key in PEM, readable by the relay's user alone.",
          format: format.path,
          default: required,
        }),
        profile: scalar({
          doc: "modern: TLS 1.3 only. intermediate: TLS 1.2, too. Either way AEAD ciphers with forward secrecy only.",
          format: format.oneOf("modern", "intermediate"),
          default: "intermediate",
        }),
        "minimum-version": scalar({
          doc: "The oldest version of TLS that is spoken.",
          format: format.oneOf("TLSv1.2", "TLSv1.3"),
          default: "TLSv1.2",
        }),
      },
      default: required,
    }),
    partners: scalar({
      doc: "The folder of the partners' files: one NAME.yaml a partner.",
      format: format.path,
      default: "partners",
    }),
    spool: group({
      doc: "Where accepted mail is kept until it is delivered.",
      keys: {
        driver: scalar({ doc: "How it is kept.", format: format.oneOf("directory"), default: "directory" }),
        path: scalar({ doc: "The folder, on a local disk.", format: format.path, default: "../var/spool" }),
      },
      default: {},
    }),
    routes: names({
      doc: "Where mail goes inside: a name of your choice, then domains and servers.",
      nameFormat: name,
      of: route,
      default: required,
    }),
    retry: group({
      doc: "What happens to mail that cannot be delivered at once.",
      keys: {
        schedule: list({
          doc: "The waits after the first, second, … failure; the last one repeats.",
          of: scalar({ doc: "A wait.", format: format.duration, default: required }),
          itemsMin: 1,
          default: ["1m", "5m", "15m", "1h", "4h"],
        }),
        expire: scalar({
          doc: "After this time the mail goes back to its sender.",
          format: format.duration,
          default: "5d",
        }),
        "warn-after": scalar({
          doc: "After this time the sender is told once that the mail is late.",
          format: format.duration,
          default: "4h",
        }),
      },
      default: {},
    }),
    limits: relayLimits,
    postmaster: scalar({
      doc: "Who gets what no sender can get; in a domain of `routes`. Default: postmaster of the first such domain.",
      format: format.text,
      default: optional,
    }),
    expiry: group({
      doc: "When certificates, revocation lists and pins that run out are spoken of.",
      keys: {
        warn: scalar({ doc: "So long before: a warning.", format: format.period, default: "30d" }),
        critical: scalar({
          doc: "So long before: `pinrelay status` and `check` end with 1, for monitoring.",
          format: format.period,
          default: "7d",
        }),
        mail: scalar({
          doc: "daily: the postmaster is told by mail as long as there is something to tell.",
          format: format.oneOf("daily", "off"),
          default: "daily",
        }),
      },
      default: {},
    }),
    audit: group({
      doc: "The records: what operators did to partners, and what the receiver decided, for `pinrelay policy diff`.",
      keys: { path: scalar({ doc: "Its folder.", format: format.path, default: "../var/audit" }) },
      default: {},
    }),
    console: group({
      doc: "The operator's web page. Not served by this version.",
      keys: {
        listen: scalar({
          doc: "A loopback address and port, as 127.0.0.1:8025, or the path of a Unix socket.",
          format: format.consoleAddress,
          default: optional,
        }),
      },
      default: {},
    }),
  },
  default: required,
});

type Written = NonNullable<ReturnType<typeof readFileAs<(typeof relayKeys)["keys"]>>>;

/** What relay.yaml says: the configuration but for the partners; parts of it where the file is not valid. */
export interface ReadRelay {
  readonly partnersFolder: string;
  readonly ownDomains: ReadonlySet<CanonicalDomain> | undefined;
  readonly messageBytesMax: number | undefined;
  readonly config: Omit<RelayConfig, "version" | "partners"> | undefined;
}

/** Where partners' files are if relay.yaml does not say, or cannot be read. */
export function defaultPartnersFolder(relayFile: string): string {
  return resolve(dirname(relayFile), relayKeys.keys.partners.default);
}

export async function readRelay(root: ConfigNode, report: FileReport, context: LoadContext): Promise<ReadRelay> {
  const written = readFileAs(relayKeys, root, report);
  if (written === undefined) {
    const partnersFolder = defaultPartnersFolder(report.file);
    return { partnersFolder, ownDomains: undefined, messageBytesMax: undefined, config: undefined };
  }
  const listen = makeListen(written.listen, report);
  const tls = await makeTls(written.tls, report, context);
  const routes = await makeRoutes(written.routes, report, context);
  const ownDomains =
    routes.length > 0 && routes.length === written.routes?.length
      ? new Set(routes.flatMap(({ domains }) => domains))
      : undefined;
  const postmaster = makePostmaster(written.postmaster, ownDomains, report);
  const retry = makeRetry(written.retry, report);
  const under = (path: string): string => resolve(dirname(report.file), path);
  const { hostname, spool, limits, expiry } = written;
  const config =
    report.errors > 0 || hostname === undefined || tls === undefined || postmaster === undefined
      ? undefined
      : {
          file: report.file,
          hostname,
          listen,
          tls,
          spool: { driver: spool.driver, path: under(spool.path) },
          routes,
          retry,
          limits: makeRelayLimits(limits),
          postmaster,
          expiry: { warnMs: expiry.warn, criticalMs: expiry.critical, mail: expiry.mail },
          audit: { path: under(written.audit.path) },
          console: { listen: makeConsoleListen(written.console.listen, under) },
        };
  return { partnersFolder: under(written.partners), ownDomains, messageBytesMax: limits["message-size"], config };
}

function makeListen(written: Written["listen"], report: FileReport): ListenAddress[] {
  const seen = new Map<string, number>();
  return (written ?? []).flatMap((one, index) => {
    if (one?.address === undefined) return [];
    const { address, port } = one;
    const earlier = seen.get(`${address} ${port}`);
    if (earlier !== undefined && port !== 0) {
      report.error(["listen", index], `is the same address and port as listen[${earlier}]: remove one of them`);
    }
    seen.set(`${address} ${port}`, index);
    return { address, port, implicitTls: one["implicit-tls"] };
  });
}

async function makeTls(
  written: Written["tls"],
  report: FileReport,
  { pemFiles }: LoadContext,
): Promise<RelayConfig["tls"] | undefined> {
  if (written?.certificate === undefined) return undefined;
  const certificateFile = resolve(dirname(report.file), written.certificate);
  const read = await pemFiles.readOwn(certificateFile);
  if (read.kind === "fault") {
    const help =
      read.fault === "does not exist"
        ? ": `pinrelay ca init` and `pinrelay ca issue HOSTNAME --out certs/server` make one to try"
        : "";
    report.error(["tls", "certificate"], `${certificateFile} ${read.fault}${help}`);
  }
  if (read.kind === "fault" || written.key === undefined) return undefined;
  return {
    certificateFile,
    // Not read here: the deliverer loads the same configuration and has no business with the key.
    keyFile: resolve(dirname(report.file), written.key),
    certificate: read.pem,
    minimumVersion: written.profile === "modern" ? "TLSv1.3" : written["minimum-version"],
  };
}

async function makeRoutes(written: Written["routes"], report: FileReport, context: LoadContext): Promise<Route[]> {
  const routes: Route[] = [];
  for (const [key, value] of written ?? []) {
    if (value === undefined) continue;
    const made = await makeRoute({ name: key, kind: "internal" }, value, ["routes", key], report, context);
    if (made !== undefined) routes.push(made);
  }
  return routes;
}

/** Reports that nobody else can get go to the postmaster: it must be one that we can deliver to. */
function makePostmaster(
  written: string | undefined,
  ownDomains: ReadonlySet<CanonicalDomain> | undefined,
  report: FileReport,
): Mailbox | undefined {
  if (written === undefined && report.isSet(["postmaster"])) return undefined;
  const [firstDomain] = ownDomains ?? [];
  const address = written ?? (firstDomain === undefined ? undefined : `postmaster@${firstDomain}`);
  if (address === undefined) return undefined;
  const mailbox = format.parseOwnMailbox(address);
  if (mailbox instanceof format.Refused) {
    report.error(["postmaster"], mailbox.message);
    return undefined;
  }
  if (ownDomains !== undefined && !ownDomains.has(mailbox.domain)) {
    const choices = quote([...ownDomains].slice(0, 3).join(", "));
    report.error(
      ["postmaster"],
      `must be in a domain that has a route here, or reports are lost; these are ${choices}`,
    );
  }
  return mailbox;
}

function makeRetry(written: Written["retry"], report: FileReport): RelayConfig["retry"] {
  const expireMs = written.expire;
  const warnAfterMs = written["warn-after"];
  if (warnAfterMs >= expireMs) {
    report.warning(["retry", "warn-after"], "is not before `expire`: no sender will be told that mail is late");
  }
  return { scheduleMs: written.schedule.filter((delay) => delay !== undefined), expireMs, warnAfterMs };
}

function makeConsoleListen(written: string | undefined, under: (path: string) => string): string | undefined {
  return written?.includes("/") === true ? under(written) : written;
}
