/**
 * How a next hop is connected to: the options of the connection and of its handshake, and whether the server is the right
 * one. Pure.
 *
 * Promises: there is no way to a "yes" without the pinned key, or without a chain to the trust anchor, within its dates,
 * together with the configured name.
 */
import type { X509Certificate } from "node:crypto";
import type { ConnectionOptions } from "node:tls";
import { carriesName } from "../partner/identity.ts";
import type { HopVerification, NextHop } from "../partner/partner.ts";
import { spkiDigest } from "../partner/pin.ts";
import type { DeliveryLimits } from "./limits.ts";
import type { SMTPConnectionOptions } from "./nodemailer-seams.ts";

const replyBytesMax = 64 * 1024;

export function connectionOptions(hop: NextHop, hostname: string, limits: DeliveryLimits): SMTPConnectionOptions {
  const { tls } = hop;
  const required = tls.mode === "required";
  // Every wait has a deadline of ours; the library's own come behind all of them.
  const backstopMs = limits.connectTimeoutMs + limits.greetingTimeoutMs + 4 * limits.replyTimeoutMs;
  return {
    host: hop.address,
    port: hop.port,
    name: hostname,
    secure: required && tls.implicit,
    requireTLS: required,
    ignoreTLS: !required,
    connectionTimeout: backstopMs,
    greetingTimeout: backstopMs,
    socketTimeout: backstopMs + limits.endTimeoutMs + limits.blockTimeoutMs,
    maxResponseSize: replyBytesMax,
    allowInternalNetworkInterfaces: true,
    logger: false,
    ...(required ? { tls: tlsOptions(hop, tls.verification) } : {}),
  };
}

/** The options of the handshake. The server's certificate is judged afterwards, before anything is said to it. */
function tlsOptions(hop: NextHop, verification: HopVerification): ConnectionOptions {
  const shared: ConnectionOptions = {
    minVersion: "TLSv1.2",
    // SNI, where there is a name; for an address there is none (RFC 6066 §3).
    ...(hop.name === undefined ? {} : { servername: hop.name }),
    checkServerIdentity: () => undefined,
  };
  if (verification.kind === "pin") return { ...shared, rejectUnauthorized: false };
  return {
    ...shared,
    // Only what may issue certificates vouches for one; a CA below another may be an anchor by itself.
    ca: verification.anchors.filter((anchor) => anchor.ca).map((anchor) => anchor.toString()),
    allowPartialTrustChain: true,
    rejectUnauthorized: true,
  };
}

/**
 * Undefined if the certificate is the right one; else what is wrong, with what was expected. A pinned key is trusted
 * whatever the certificate around it says (as in RFC 7672 §3.1.1); a trust anchor's chain, dates included, was checked
 * by TLS, so that the name is left.
 */
export function judgeServer(
  certificate: X509Certificate | undefined,
  verification: HopVerification,
  name: string | undefined,
): string | undefined {
  if (certificate === undefined) return "the server presented no certificate";
  switch (verification.kind) {
    case "pin": {
      const digest = spkiDigest(certificate);
      return verification.digests.includes(digest)
        ? undefined
        : `the server's key is ${digest}, pinned is ${verification.digests.join(" or ")}`;
    }
    case "trustAnchor":
      return name !== undefined && carriesName(certificate, name)
        ? undefined
        : `the server's certificate does not carry the name ${name ?? "(none configured)"}`;
  }
}
