/** Which names our CA certifies for a partner: a table, most of it refusals. */
import { describe, expect, it } from "vitest";
import { judgeRequest, type OwnNames } from "../../src/certs/enrolment.ts";
import { parseRequest, type CertificateRequest } from "../../src/certs/request.ts";
import { parseAddressRange, type AddressRange } from "../../src/partner/address-range.ts";
import { fixtureDer } from "./support.ts";

const own: OwnNames = {
  hostname: "mx.corp.example",
  domains: ["corp.example", "xn--bro-hoa.example"],
  others: [{ name: "mx.globex.example", partner: "globex" }],
};
const hosts = ["203.0.113.0/28", "2001:db8:1::/64"].map(range);

const plain = parseRequest(fixtureDer("name-only.csr.pem"));

function range(text: string): AddressRange {
  const parsed = parseAddressRange(text);
  if (parsed.kind === "fault") throw new Error(parsed.fault);
  return parsed;
}

function request(changes: Partial<CertificateRequest>): CertificateRequest {
  return { ...plain, ...changes };
}

function cn(value: string): CertificateRequest["subject"] {
  return [{ type: "CN", value }];
}

describe("granted are", () => {
  it.each([
    {
      what: "the names of the subjectAltName, canonical, and the common name",
      asked: parseRequest(fixtureDer("p256.csr.pem")),
      names: {
        commonName: "mx.acme.example",
        dnsNames: ["mx.acme.example", "mx2.acme.example"],
        ipAddresses: ["203.0.113.5", "2001:db8:1::5"],
      },
    },
    {
      what: "the common name where there is no subjectAltName",
      asked: plain,
      names: { commonName: "mx.acme.example", dnsNames: ["mx.acme.example"], ipAddresses: [] },
    },
    {
      what: "a common name in another script, as A-labels",
      asked: parseRequest(fixtureDer("utf8.csr.pem")),
      names: { commonName: "mx.bücher.example", dnsNames: ["mx.xn--bcher-kva.example"], ipAddresses: [] },
    },
    {
      what: "no DNS names out of a common name that is a word",
      asked: request({ subject: cn("acme") }),
      names: { commonName: "acme", dnsNames: [], ipAddresses: [] },
    },
    {
      what: "no common name where there is none",
      asked: parseRequest(fixtureDer("no-names.csr.pem")),
      names: { commonName: undefined, dnsNames: [], ipAddresses: [] },
    },
    {
      what: "no common name that would turn a display around",
      asked: request({ subject: cn("mx\u202eexample") }),
      names: { commonName: undefined, dnsNames: [], ipAddresses: [] },
    },
    {
      what: "names that only end like ours",
      asked: request({ subject: cn("notcorp.example"), dnsNames: ["corp.example.acme.example"] }),
      names: { commonName: "notcorp.example", dnsNames: ["corp.example.acme.example"], ipAddresses: [] },
    },
  ])("$what", ({ asked, names }) => {
    expect(judgeRequest(asked, own, hosts)).toEqual({ kind: "granted", names });
  });

  it("names of ours where the operator says that the host is ours", () => {
    expect(judgeRequest(request({ subject: cn("mail1.corp.example") }), undefined, undefined).kind).toBe("granted");
  });
});

describe("refused is a request that claims", () => {
  it.each([
    {
      what: "our host name",
      asked: parseRequest(fixtureDer("own-hostname.csr.pem")),
      says: "'MX.Corp.Example', which is a name of ours",
    },
    {
      what: "our host name as its common name",
      asked: parseRequest(fixtureDer("own-common-name.csr.pem")),
      says: "a name of ours",
    },
    { what: "a mailbox of ours", asked: parseRequest(fixtureDer("own-email.csr.pem")), says: "'boss@corp.example'" },
    { what: "a URI of ours", asked: parseRequest(fixtureDer("own-uri.csr.pem")), says: "a name of ours" },
    { what: "a domain of ours", asked: request({ dnsNames: ["corp.example"] }), says: "a name of ours" },
    {
      what: "a name below a domain of ours",
      asked: request({ dnsNames: ["a.b.corp.example"] }),
      says: "a name of ours",
    },
    { what: "ours with a trailing dot", asked: request({ dnsNames: ["corp.example."] }), says: "a name of ours" },
    { what: "ours behind a wildcard", asked: request({ dnsNames: ["*.corp.example"] }), says: "a name of ours" },
    { what: "ours as U-labels", asked: request({ subject: cn("büro.example") }), says: "a name of ours" },
    {
      what: "ours in decomposed letters",
      asked: request({ subject: cn("bu\u0308ro.example") }),
      says: "a name of ours",
    },
    {
      what: "ours in full-width letters",
      asked: request({ subject: cn("ｃｏｒｐ．ｅｘａｍｐｌｅ") }),
      says: "a name of ours",
    },
    {
      what: "ours with an ideographic dot",
      asked: request({ subject: cn("corp\u3002example") }),
      says: "a name of ours",
    },
    {
      what: "ours before a NUL",
      asked: request({ subject: cn("corp.example\0.acme.example") }),
      says: "a name of ours",
    },
    {
      what: "ours within a sentence",
      asked: request({ subject: cn("the host corp.example (new)") }),
      says: "a name of ours",
    },
    {
      what: "ours as its organisation",
      asked: request({ subject: [{ type: "O", value: "Corp.Example" }] }),
      says: "a name of ours",
    },
    {
      what: "the name of another partner",
      asked: request({ dnsNames: ["mx.acme.example", "MX.Globex.Example."] }),
      says: "claims 'MX.Globex.Example.', which is a name of the partner globex",
    },
    {
      what: "the name of another partner as its common name",
      asked: request({ subject: cn("mx.globex.example") }),
      says: "a name of the partner globex",
    },
    { what: "a wildcard", asked: parseRequest(fixtureDer("wildcard.csr.pem")), says: "the wildcard '*.acme.example'" },
    { what: "what is no name", asked: request({ dnsNames: ["mx acme"] }), says: "not a domain name" },
    { what: "an address as a DNS name", asked: request({ dnsNames: ["203.0.113.5"] }), says: "not a domain name" },
    {
      what: "an address outside its hosts",
      asked: request({ ipAddresses: ["198.51.100.1"] }),
      says: "the address 198.51.100.1, which is not among",
    },
  ])("$what", ({ asked, says }) => {
    const judged = judgeRequest(asked, own, hosts);
    expect(judged.kind).toBe("refused");
    expect(judged.kind === "refused" ? judged.reasons.join("; ") : "").toContain(says);
  });

  it("several of these, and every reason is told once", () => {
    const judged = judgeRequest(
      request({ subject: cn("corp.example"), dnsNames: ["corp.example", "*"], ipAddresses: ["198.51.100.1"] }),
      own,
      hosts,
    );
    expect(judged.kind === "refused" ? judged.reasons : []).toHaveLength(3);
  });

  it("the single label that we are called by, but not the word in a sentence", () => {
    const bare: OwnNames = { hostname: "relay", domains: [], others: [] };
    expect(judgeRequest(request({ subject: cn("Relay") }), bare, hosts).kind).toBe("refused");
    expect(judgeRequest(request({ subject: [{ type: "O", value: "Relay Makers Ltd" }] }), bare, hosts).kind).toBe(
      "granted",
    );
  });
});
