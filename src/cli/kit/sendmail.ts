/** The kit for sendmail 8.16 and later with FEATURE(tls_session_features): a mailer and a rule for our address. Pure. */
import { type KitFacts } from "./facts.ts";
import type { ServerKind, ServerKit } from "./snippet.ts";

export const sendmail: ServerKind = {
  defaults: { certificateFile: "/etc/mail/tls/partner-client.pem", keyFile: "/etc/mail/tls/partner-client.key" },
  make,
};

const mailer = "partnermx";

function make(facts: KitFacts): ServerKit {
  const { endpoint, domains, certificate, certificateFile, keyFile } = facts;
  const address = endpoint.address.includes(":") ? `IPv6:${endpoint.address}` : endpoint.address;
  return {
    title: "sendmail",
    proven: true,
    snippets: [
      {
        name: "sendmail-features.mc",
        where: "put it into sendmail.mc before the first MAILER line; leave out what is there already",
        text: `define(\`confCERT_FINGERPRINT_ALGORITHM', \`sha256')dnl
FEATURE(\`mailertable')dnl
FEATURE(\`access_db')dnl
FEATURE(\`tls_session_features')dnl
`,
      },
      {
        name: "sendmail-mailer.mc",
        where: "put it at the end of sendmail.mc, behind the last MAILER line; the blanks in the rules (R…) are tabs",
        text: `MAILER_DEFINITIONS
M${mailer},	P=[IPC], F=mDFMuXa8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=2040,
		T=DNS/RFC822/SMTP,
		A=TCP $h ${endpoint.port}

LOCAL_TLS_SERVER
R$*	$: $&{server_addr} $| $&{cert_fp}
R${address} $| ${certificate.fingerprint}	$@ OK
R${address} $| $*	$#error $@ 4.7.0 $: "454 4.7.0 the partner's relay shows no or another certificate"
R$*	$@ OK
`,
      },
      {
        name: "mailertable",
        where: "append it to /etc/mail/mailertable",
        text: domains.map((domain) => `${domain}\t${mailer}:[${address}]\n`).join(""),
      },
      {
        name: "access",
        where: "append it to /etc/mail/access",
        text: `TLS_Clt_Features:${address}\tCertFile=${certificateFile}; KeyFile=${keyFile}\n`,
      },
    ],
    steps: [
      `chmod 600 ${keyFile}   # owned by root: sendmail refuses a key that others can read`,
      "cd /etc/mail && makemap hash mailertable < mailertable && makemap hash access < access",
      "m4 sendmail.mc > sendmail.cf && systemctl restart sendmail   # or make, where /etc/mail has a Makefile",
      `sendmail -bv ${facts.probe}`,
    ],
    notes: [
      "sendmail compares the SHA-256 of our whole certificate: the rule must change whenever we renew it. We send you the " +
        "new one before; a second line like the one that ends in OK lets both in.",
      "Mail waits in your queue (deferred) while our certificate does not match or TLS is not offered.",
    ],
  };
}
