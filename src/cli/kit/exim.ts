/** The kit for Exim 4.92 and later, built with GnuTLS or OpenSSL: a router and a transport. Pure. */
import { tag, type KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const exim: ServerKind = {
  defaults: { certificateFile: "/etc/exim4/partner-client.pem", keyFile: "/etc/exim4/partner-client.key" },
  make,
};

function make(facts: KitFacts): ServerKit {
  const { hostname, endpoint, domains, certificate, anchor, certificateFile, keyFile } = facts;
  const name = tag(facts).replaceAll("-", "_");
  const anchorFile = `/etc/exim4/${hostname}-${anchor?.kind === "itself" ? "certificate" : "ca"}.pem`;
  const fingerprint = certificate.fingerprint.replaceAll(":", "");
  return {
    title: "Exim 4",
    proven: true,
    snippets: [
      ...(anchor === undefined
        ? []
        : [
            {
              name: anchorFile.slice("/etc/exim4/".length),
              where: `copy it to ${anchorFile}, readable by Exim's user`,
              text: anchor.pem,
            },
          ]),
      {
        name: "exim-router.conf",
        where:
          "put it at the top of the routers (`begin routers`); with Debian's split configuration, as " +
          "/etc/exim4/conf.d/router/050_partner",
        text: `${name}:
  driver = manualroute
  domains = ${domains.join(" : ")}
  transport = ${name}
  route_list = * ${endpoint.address.includes(":") ? `"<; ${endpoint.address}"` : endpoint.address}
  no_more
`,
      },
      {
        name: "exim-transport.conf",
        where:
          "put it among the transports (`begin transports`); with Debian's split configuration, as " +
          "/etc/exim4/conf.d/transport/50_partner",
        text: `${name}:
  driver = smtp
  port = ${endpoint.port}
  hosts_require_tls = *
  tls_sni = ${hostname}
  tls_certificate = ${certificateFile}
  tls_privatekey = ${keyFile}
  tls_verify_certificates = ${anchor === undefined ? "system" : anchorFile}
  tls_verify_hosts = *
  tls_verify_cert_hostnames = :
  event_action = \${if and{ {eq{$event_name}{tls:cert}} {eq{$event_data}{0}} \\
    {!eq{\${sha256:$tls_out_peercert}}{${fingerprint}}} }{not the pinned certificate}}
`,
      },
    ],
    steps: [
      `chgrp Debian-exim ${keyFile} && chmod 640 ${keyFile}   # the user that exim -bP exim_user names`,
      "exim -bV && systemctl reload exim4   # with Debian's split configuration: update-exim4.conf first",
      `exim -bt ${facts.probe}`,
    ],
    notes: [
      "Exim compares the SHA-256 of our whole certificate, in an event that ends the handshake: the line must change " +
        "whenever we renew it. We send you the new one before; until then both may be listed with or{{…}{…}}.",
      "Mail waits in your queue (deferred) while our certificate does not match or TLS is not offered.",
    ],
  };
}
