/**
 * The servers that are measured, each with the same partner, the same certificates and the same next hop: the relay as it
 * is shipped, and a private Postfix that asks for client certificates and checks their fingerprints as we do.
 */
import { join } from "node:path";
import type { RelayFolder } from "../test/tools/relay-folder.ts";
import { acmeAddress, makeRelayFolder, relayAddress } from "../test/tools/relay-folder.ts";
import { startRelayProcess } from "../test/tools/relay-process.ts";
import { describeCertificate } from "../test/interop/certificates.ts";
import { startPostfix } from "../test/interop/postfix.ts";

export interface MeasuredServer {
  readonly name: "pinrelay" | "postfix";
  readonly address: string;
  readonly port: number;
  /** The root of its process tree. */
  readonly pid: number;
  stop(): Promise<unknown>;
  /** The end of its log, for when something went wrong. */
  lastWords(): Promise<string>;
}

export async function makeFolder(sinkPort: () => Promise<number>): Promise<RelayFolder> {
  return makeRelayFolder({ hop: { address: "127.0.0.21", port: await sinkPort() } });
}

export async function startPinrelay(folder: RelayFolder): Promise<MeasuredServer> {
  const relay = await startRelayProcess(folder.configFile, join(folder.path, "spool"));
  return {
    name: "pinrelay",
    address: relayAddress,
    port: relay.ports[0] ?? 0,
    pid: relay.child.pid ?? 0,
    stop: () => relay.stop(),
    lastWords: () =>
      Promise.resolve(
        relay
          .log()
          .slice(-20)
          .map((line) => JSON.stringify(line))
          .join("\n"),
      ),
  };
}

/** Tuned as the benchmark's notes say: what was found to be its best on such a machine. */
export async function startBenchPostfix(folder: RelayFolder, sinkPort: number): Promise<MeasuredServer> {
  const files = (name: string) => ({
    certificateFile: join(folder.path, "certs", `${name}.pem`),
    keyFile: join(folder.path, "certs", `${name}.key`),
  });
  const acme = await describeCertificate(files("acme"));
  const inside = await describeCertificate(files("inside"));
  const server = await describeCertificate(files("server"));
  const postfix = await startPostfix({
    role: "internal",
    hostname: "mx.corp.example",
    address: "127.0.0.3",
    domains: ["unused.example"],
    tls: { level: "encrypt", certificate: server, clientCertificate: "ask" },
    relay: { address: "127.0.0.21", port: sinkPort, tls: { level: "fingerprint", matches: [inside.keyFingerprint] } },
    parameters: {
      relay_domains: "corp.example",
      relay_transport: `smtp:[127.0.0.21]:${sinkPort}`,
      relay_recipient_maps: "inline:{orders@corp.example=OK}",
      relay_clientcerts: `inline:{{${acme.keyFingerprint}=acme}}`,
      mynetworks: "127.0.0.99/32",
      smtpd_relay_restrictions: "permit_tls_clientcerts, reject",
      smtpd_recipient_restrictions: "permit_tls_clientcerts, reject",
      smtpd_sender_restrictions: "check_sender_access inline:{acme.example=OK}, reject",
      smtpd_data_restrictions: "",
      smtpd_end_of_data_restrictions: "",
      smtp_destination_concurrency_limit: "8",
      relay_destination_concurrency_limit: "8",
      initial_destination_concurrency: "8",
      smtp_connection_cache_on_demand: "no",
      smtp_tls_connection_reuse: "no",
      max_use: "100000",
      max_idle: "1000s",
      smtpd_client_connection_rate_limit: "0",
      smtpd_client_connection_count_limit: "0",
      smtpd_client_message_rate_limit: "0",
      smtpd_client_new_tls_session_rate_limit: "0",
      smtpd_tls_session_cache_database: "",
      smtpd_tls_loglevel: "0",
      smtp_tls_loglevel: "0",
      smtpd_tls_mandatory_protocols: ">=TLSv1.3",
    },
  });
  return {
    name: "postfix",
    ...postfix.endpoint,
    pid: postfix.masterPid,
    stop: () => postfix.stop(),
    lastWords: async () => (await postfix.log()).split("\n").slice(-30).join("\n"),
  };
}

export { acmeAddress };
