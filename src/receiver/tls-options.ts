/**
 * How the receiver speaks TLS: only versions 1.2 and 1.3, only AEAD ciphers with forward secrecy (RFC 9325 §4.2), the
 * hybrid post-quantum key exchange first; no resumption, no renegotiation, no compression. Pure.
 */
import { constants } from "node:crypto";
import type { TlsOptions } from "node:tls";
import type { RelayConfig } from "../config/relay-config.ts";

const ciphers = [
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "TLS_AES_128_GCM_SHA256",
  // TLS 1.2
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
];

/**
 * As SSL_CTX_set1_groups_list(3) reads it: the slash makes the hybrid come before all others, so that a client that knows
 * it, but sent its share for another group, is asked again.
 */
const groups = "X25519MLKEM768/X25519:P-256:P-384:P-521";

export function tlsServerOptions({ minimumVersion }: RelayConfig["tls"]): TlsOptions {
  return {
    minVersion: minimumVersion,
    maxVersion: "TLSv1.3",
    ciphers: ciphers.join(":"),
    ecdhCurve: groups,
    honorCipherOrder: true,
    // A resumed session shows no certificate; without tickets there is none to resume.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION,
    requestCert: true,
    rejectUnauthorized: false, // the certificate is judged at MAIL, by us, so that the partner is told what is wrong
  };
}
