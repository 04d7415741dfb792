/** The kit for Postfix 3.4 and later: a transport of its own, so that nothing of it touches other mail. Pure. */
import { tag, type KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const postfix: ServerKind = {
  defaults: { certificateFile: "/etc/postfix/partner-client.pem", keyFile: "/etc/postfix/partner-client.key" },
  make,
};

function make(facts: KitFacts): ServerKit {
  const { hostname, endpoint, domains, certificate, certificateFile, keyFile } = facts;
  const name = tag(facts);
  const map = `${hostname}.transport`;
  const address = endpoint.address.includes(":") ? `ipv6:${endpoint.address}` : endpoint.address;
  const old = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", ...(facts.minimumVersion === "TLSv1.3" ? ["TLSv1.2"] : [])];
  return {
    title: "Postfix",
    proven: true,
    snippets: [
      {
        name: map,
        where: `put it into Postfix's configuration folder, usually /etc/postfix/${map}`,
        text: domains.map((domain) => `${domain}\t${name}:[${address}]:${endpoint.port}\n`).join(""),
      },
      {
        name: "main.cf",
        where:
          "append it to main.cf; if there is a transport_maps already, add this map to that one, before the others",
        text: `transport_maps = texthash:$config_directory/${map}\n`,
      },
      {
        name: "master.cf",
        where: "append it to master.cf",
        text: `${name} unix - - n - - smtp
  -o smtp_tls_security_level=fingerprint
  -o smtp_tls_fingerprint_digest=sha256
  -o smtp_tls_fingerprint_cert_match=${certificate.keyFingerprint}
  -o smtp_tls_mandatory_protocols=${old.map((version) => `!${version}`).join(",")}
  -o smtp_tls_cert_file=${certificateFile}
  -o smtp_tls_key_file=${keyFile}
  -o smtp_tls_chain_files=
  -o smtp_tls_policy_maps=
  -o smtp_tls_wrappermode=no
  -o smtp_sasl_auth_enable=no
  -o smtp_fallback_relay=
`,
      },
    ],
    steps: ["postfix check && postfix reload", `postmap -q ${domains[0]} texthash:/etc/postfix/${map}`],
    notes: [
      "Postfix compares the SHA-256 of our public key: it holds as long as we keep the key, also when the certificate " +
        "is renewed. We tell you before the key changes; two fingerprints may stand there, separated by |.",
      "Mail waits in your queue (deferred) while our key does not match or TLS is not offered; nothing goes in the clear.",
    ],
  };
}
