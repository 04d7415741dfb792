/**
 * What TLS knows of a peer. The library's own verdict is not among it: that is "authorized" for sessions which showed no
 * certificate at all.
 */
import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { SecuredBy } from "./session.ts";
import { keyExchangeGroup } from "./tls-group.ts";

/**
 * The leaf and three issuers, which are more than partners have below a trust anchor. Looking for a way through many that
 * could all have issued one another would cost the time of a great number of signatures.
 */
export const certificatesMax = 4;

/** Reads the certificate that the peer has proven to own, with those it sent along, and the parameters of the session. */
export function readTlsPeer(socket: TLSSocket): SecuredBy {
  const chain: X509Certificate[] = [];
  let certificate = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length < certificatesMax) {
    chain.push(certificate);
    certificate = certificate.issuerCertificate;
  }
  return {
    chain,
    version: socket.getProtocol() ?? "unknown",
    cipher: socket.getCipher().name,
    group: keyExchangeGroup(socket),
  };
}
