/** The kit for Microsoft Exchange Server: a send connector. No test of ours runs an Exchange, and the text says so. Pure. */
import type { KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const exchange: ServerKind = {
  defaults: { certificateFile: "/partner-client.pem", keyFile: "/partner-client.key" },
  make,
};

function make(facts: KitFacts): ServerKit {
  const { hostname, endpoint, domains } = facts;
  const spaces = domains.map((domain) => `"SMTP:${domain};1"`).join(",");
  return {
    title: "Exchange Server 2016 and later",
    proven: false,
    snippets: [
      {
        name: "connector.ps1",
        where: "run it in the Exchange Management Shell; THUMBPRINT is that of your client certificate",
        text: `$cert = Get-ExchangeCertificate -Thumbprint THUMBPRINT
New-SendConnector -Name "${hostname}" -Usage Custom \`
  -AddressSpaces ${spaces} \`
  -DNSRoutingEnabled $false -SmartHosts "[${endpoint.address}]" -Port ${endpoint.port} \`
  -RequireTLS $true -TlsAuthLevel DomainValidation -TlsDomain "${hostname}" \`
  -TlsCertificateName "<I>$($cert.Issuer)<S>$($cert.Subject)" \`
  -IgnoreSTARTTLS $false -ForceHELO $false -ErrorPolicies Default
`,
      },
    ],
    steps: [
      "Import your client certificate with its private key into the computer's store of every transport server, and " +
        "give it the SMTP service (Enable-ExchangeCertificate).",
      "Import our CA's certificate, or ours where it is self-signed, into the computer's Trusted Root store.",
      `Test-SmtpConnectivity does not cover send connectors: send a message to ${facts.probe}.`,
    ],
    notes: [
      "UNPROVEN: unlike the kits for Postfix, Exim, OpenSMTPD and sendmail, this one has not been run against the real " +
        "server. Check it with your vendor's documentation.",
      "Exchange cannot compare a fingerprint: it verifies our certificate by CA and name (TlsDomain), with every CA that " +
        "Windows trusts, and asks for its revocation list.",
      "Exchange chooses the client certificate by issuer and subject; when you renew it under the same names, it may go on " +
        "with the old one until the connector is set anew.",
      "Exchange Online cannot present a client certificate of yours: route the mail through a server of your own.",
    ],
  };
}
