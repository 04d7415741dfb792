/** The kit for any other mail server: what must be configured, in words. Pure. */
import type { KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const generic: ServerKind = {
  defaults: { certificateFile: "/etc/ssl/partner-client.pem", keyFile: "/etc/ssl/private/partner-client.key" },
  make,
};

function make({ hostname, endpoint, domains, certificate, anchor, minimumVersion }: KitFacts): ServerKit {
  const verify =
    anchor === undefined
      ? `or else the name ${hostname} in it, and the CA that issued it`
      : `or else the name ${hostname} in it, and ${anchor.kind === "itself" ? "that very certificate as its CA" : "our CA alone"}`;
  return {
    title: "any mail server",
    proven: false,
    snippets: [],
    steps: [
      `Route ${domains.join(", ")}, and no other domain, to ${endpoint.address} port ${endpoint.port}: a fixed address, ` +
        "never a look-up of MX records.",
      `Make TLS mandatory there, by STARTTLS, ${minimumVersion} at least: no fall-back to the clear.`,
      "Present your client certificate there, and nowhere else.",
      `Verify ours: best its key, ${certificate.spki}, or the certificate, ${certificate.digest}, ${verify}.`,
      "See that mail waits in the queue, and does not bounce, while one of these does not hold.",
    ],
    notes: [],
  };
}
