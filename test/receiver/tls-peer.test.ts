import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { describe, expect, it } from "vitest";
import { readTlsPeer } from "../../src/receiver/tls-peer.ts";

/** As much of a TLS socket as is read. */
function socketWith(certificates: number): TLSSocket {
  let chain: X509Certificate | undefined;
  for (let index = certificates; index > 0; index -= 1)
    chain = { subject: `CN=${index}`, issuerCertificate: chain } as unknown as X509Certificate;
  return {
    getPeerX509Certificate: () => chain,
    getProtocol: () => "TLSv1.3",
    getCipher: () => ({ name: "TLS_AES_256_GCM_SHA384" }),
    getSession: () => undefined,
  } as unknown as TLSSocket;
}

describe("what a peer shows", () => {
  it("is its certificate with those it sent along, leaf first", () => {
    expect(readTlsPeer(socketWith(2))).toMatchObject({
      chain: [{ subject: "CN=1" }, { subject: "CN=2" }],
      version: "TLSv1.3",
      cipher: "TLS_AES_256_GCM_SHA384",
    });
    expect(readTlsPeer(socketWith(0)).chain).toEqual([]);
  });

  it("is cut off behind three issuers: a long chain would cost time without end", () => {
    expect(readTlsPeer(socketWith(100)).chain.map(({ subject }) => subject)).toEqual(["CN=1", "CN=2", "CN=3", "CN=4"]);
  });
});
