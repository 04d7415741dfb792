/** The kit for OpenSMTPD 7.3 and later: an action and a match. Pure. */
import { tag, type KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const opensmtpd: ServerKind = {
  defaults: { certificateFile: "/etc/mail/partner-client.pem", keyFile: "/etc/mail/partner-client.key" },
  make,
};

function make(facts: KitFacts): ServerKit {
  const { hostname, endpoint, domains, anchor, certificateFile, keyFile } = facts;
  const name = tag(facts);
  const anchorFile = `/etc/mail/${hostname}-${anchor?.kind === "itself" ? "certificate" : "ca"}.pem`;
  return {
    title: "OpenSMTPD",
    proven: true,
    snippets: [
      ...(anchor === undefined
        ? []
        : [{ name: anchorFile.slice("/etc/mail/".length), where: `copy it to ${anchorFile}`, text: anchor.pem }]),
      {
        name: "hosts",
        where: "append it to /etc/hosts: OpenSMTPD compares the name that it connects to with our certificate",
        text: `${endpoint.address}\t${hostname}\n`,
      },
      {
        name: "smtpd.conf",
        where: "put it into smtpd.conf, its match line before all other match lines: the first one decides",
        text: `pki "${name}" cert "${certificateFile}"
pki "${name}" key "${keyFile}"
${anchor === undefined ? "" : `ca "${name}" cert "${anchorFile}"\n`}action "${name}" relay host "smtp+tls://${hostname}:${endpoint.port}" pki "${name}"${anchor === undefined ? "" : ` ca "${name}"`} tls
match from local for domain { ${domains.map((domain) => `"${domain}"`).join(", ")} } action "${name}"
`,
      },
    ],
    steps: [
      `chmod 600 ${keyFile}   # owned by root: the daemon refuses a key that others can read`,
      "smtpd -n && systemctl restart opensmtpd   # on OpenBSD: rcctl restart smtpd",
    ],
    notes: [
      `OpenSMTPD knows no fingerprints: it verifies our certificate by the name ${hostname} and ` +
        (anchor === undefined
          ? "the CAs that the system trusts."
          : anchor.kind === "itself"
            ? "a copy of itself, which must be replaced when we renew it."
            : "our CA alone."),
      "OpenSMTPD 6.8 with OpenSSL 3, as in Debian 12, can use no private key for TLS (its log says: missing private key), " +
        "so it can present no certificate: use 7.3 or later.",
      "`from local` lets in what comes from this host. Mail that comes from hosts in your network needs a second match " +
        "line with `from src`, or the tag of your listener; `from any` would open the way to us to everybody.",
      "Mail waits in your queue while our certificate is not verified or TLS is not offered.",
    ],
  };
}
