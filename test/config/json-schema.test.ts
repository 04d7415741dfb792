import { describe, expect, it } from "vitest";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { JsonSchema, JsonValue } from "../../src/config/formats.ts";
import { schemaFiles, schemaOf } from "../../src/config/json-schema.ts";
import { partnerKeys } from "../../src/config/partner.ts";
import { relayKeys } from "../../src/config/relay.ts";
import { parseSource, type ConfigNode } from "../../src/config/source.ts";
import { digests, partnerYaml, relayYaml } from "./support.ts";

const configFolder = join(import.meta.dirname, "../../config");

describe("config/schema", () => {
  it.each(schemaFiles().map(({ name, text }) => [name, text]))("%s is up to date", async (name, text) => {
    // If it is not: npm run schema
    expect(await readFile(join(configFolder, "schema", name), "utf8")).toBe(text);
  });

  it("describes every key", () => {
    for (const { text } of schemaFiles()) {
      const properties = [...text.matchAll(/^( *)"[a-z-]+": \{\n\1 {2}"(\w+)"/gm)].filter(
        ([line]) => !line.includes('"properties"'),
      );
      expect(properties.length).toBeGreaterThan(10);
      for (const [, , first] of properties) expect(["description", "type"]).toContain(first);
    }
  });
});

const relaySchema = schemaOf(relayKeys);
const partnerSchema = schemaOf(partnerKeys);

describe("what loads is valid by its schema", () => {
  it("the examples", async () => {
    expect(faultsOf(relaySchema, await readFile(join(configFolder, "relay.yaml"), "utf8"))).toEqual([]);
    for (const name of await readdir(join(configFolder, "partners"))) {
      expect(faultsOf(partnerSchema, await readFile(join(configFolder, "partners", name), "utf8"))).toEqual([]);
    }
  });

  it.each([
    relayYaml(),
    relayYaml("limits: { message-size: 512, spool-bytes: 1TiB }\nconsole: { listen: '[::1]:80' }"),
    relayYaml("console: { listen: ../run/console.sock }\nspool: { path: /x }\nretry: { schedule: [1s] }"),
  ])("%s", (text) => {
    expect(faultsOf(relaySchema, text)).toEqual([]);
  });

  it.each([
    partnerYaml(),
    partnerYaml("", digests[0].slice(7)),
    partnerYaml("", digests[0].replace("/", "//")),
    partnerYaml("", Buffer.from(digests[0].slice(7), "base64").toString("hex")),
    partnerYaml("", `SHA256 Fingerprint=${"AB:".repeat(31)}CD`),
    partnerYaml().replace("203.0.113.1", '203.0.113.1, any, "fe80::1%eth0", "::/0"'),
    partnerYaml().replace(
      "@corp.example",
      '@*.corp.example", "j\u00f6rg@b\u00fccher.example", "\\"a b\\"@corp.example',
    ),
    partnerYaml(`deliver: { domains: [a.b], servers: [{ address: "::1", tls: { pin: ["${digests[0]}"] } }] }`),
  ])("%s", (text) => {
    expect(faultsOf(partnerSchema, text)).toEqual([]);
  });
});

describe("editors are told of", () => {
  it.each([
    ["an unknown key", "/: unknown colour", partnerYaml("colour: red")],
    ["a missing key", "/: missing hosts", partnerYaml().replace("hosts:", "# ")],
    ["a missing key of a group", "/allow: missing to", partnerYaml().replace(/, to: .*\]/, "")],
    ["an unknown key of an element", "/pins/0: unknown lable", partnerYaml().replace("{ spki", "{ lable: x, spki")],
    ["two kinds of pin", "/pins/0: oneOf", partnerYaml().replace("{ spki", `{ certificate: "${digests[0]}", spki`)],
    ["no pin", "/pins: minItems", partnerYaml().replace(/pins: .*/, "pins: []")],
    ["a digest that is none", "/pins/0/spki: pattern", partnerYaml("", "sha256/BASE64")],
    ["a size that is none", "/limits/queue-bytes: pattern", partnerYaml("limits: { queue-bytes: 1GB }")],
    ["a limit of none", "/limits/recipients: minimum", partnerYaml("limits: { recipients: 0 }")],
    ["a mode that is none", "/mode: enum", partnerYaml("mode: off")],
    ["text for a list", "/hosts: type", partnerYaml().replace("[203.0.113.1]", "203.0.113.1")],
  ])("%s", (_name, expected, text) => {
    expect(faultsOf(partnerSchema, text)).toContain(expected);
  });

  it.each([
    ["submission", "/submission: not", relayYaml("submission: []")],
    ["a route's name", "/routes: propertyNames", relayYaml().replace("internal:", '"our own":')],
    [
      "an unknown key of a server",
      "/routes/internal/servers/0: unknown adress",
      relayYaml().replace("{ address: 10", "{ adress: 10"),
    ],
    ["yes for a boolean", "/listen/0/implicit-tls: type", relayYaml().replace("port: 0", "port: 0, implicit-tls: yes")],
  ])("%s", (_name, expected, text) => {
    expect(faultsOf(relaySchema, text)).toContain(expected);
  });
});

function faultsOf(schema: JsonSchema, text: string): string[] {
  const root = parseSource("/f.yaml", Buffer.from(text), []);
  if (root === undefined) throw new Error("no YAML");
  return validate(schema, plainOf(root), "");
}

function plainOf(node: ConfigNode): JsonValue {
  switch (node.kind) {
    case "scalar":
      return node.value;
    case "list":
      return node.items.map(plainOf);
    case "map":
      return Object.fromEntries(node.entries.map(({ key, value }) => [key, plainOf(value)]));
  }
}

/** The keywords of draft 2020-12 that our schemas use, by its words; any other is a fault. */
function validate(schema: JsonSchema, value: JsonValue, at: string): string[] {
  return Object.entries(schema).flatMap(([keyword, operand]) => {
    const fault = (wrong: boolean): string[] => (wrong ? [`${at || "/"}: ${keyword}`] : []);
    switch (keyword) {
      case "description":
      case "default":
        return [];
      case "type":
        return fault(![operand].flat().some((type) => isOfType(value, type)));
      case "enum":
        return fault(!Array.isArray(operand) || !operand.includes(value));
      case "pattern":
        return fault(typeof value === "string" && !new RegExp(asText(operand), "u").test(value));
      case "minimum":
        return fault(typeof value === "number" && value < Number(operand));
      case "maximum":
        return fault(typeof value === "number" && value > Number(operand));
      case "minLength":
        return fault(typeof value === "string" && value.length < Number(operand));
      case "maxLength":
        return fault(typeof value === "string" && value.length > Number(operand));
      case "minItems":
        return fault(Array.isArray(value) && value.length < Number(operand));
      case "minProperties":
        return fault(isObject(value) && Object.keys(value).length < Number(operand));
      case "items":
        return Array.isArray(value) ? value.flatMap((item, i) => validate(asSchema(operand), item, `${at}/${i}`)) : [];
      case "not":
        return fault(validate(asSchema(operand), value, at).length === 0);
      case "anyOf":
        return fault(!asSchemas(operand).some((one) => validate(one, value, at).length === 0));
      case "oneOf":
        return fault(asSchemas(operand).filter((one) => validate(one, value, at).length === 0).length !== 1);
      case "required":
        return isObject(value)
          ? [operand]
              .flat()
              .map(asText)
              .flatMap((key) => (Object.hasOwn(value, key) ? [] : [`${at || "/"}: missing ${key}`]))
          : [];
      case "properties":
        return isObject(value)
          ? Object.entries(asSchema(operand)).flatMap(([key, one]) =>
              Object.hasOwn(value, key) ? validate(asSchema(one), value[key] ?? null, `${at}/${key}`) : [],
            )
          : [];
      case "propertyNames":
        return isObject(value)
          ? fault(Object.keys(value).some((key) => validate(asSchema(operand), key, at).length > 0))
          : [];
      case "additionalProperties":
        return isObject(value) ? validateAdditional(schema, operand, value, at) : [];
      default:
        throw new Error(`the schema uses ${keyword}`);
    }
  });
}

function validateAdditional(schema: JsonSchema, operand: JsonValue, value: JsonSchema, at: string): string[] {
  const known = Object.keys(asSchema(schema["properties"] ?? {}));
  return Object.entries(value).flatMap(([key, one]) => {
    if (known.includes(key)) return [];
    return operand === false ? [`${at || "/"}: unknown ${key}`] : validate(asSchema(operand), one, `${at}/${key}`);
  });
}

function isOfType(value: JsonValue, type: JsonValue): boolean {
  switch (asText(type)) {
    case "string":
    case "number":
    case "boolean":
      return typeof value === type;
    case "integer":
      return Number.isInteger(value);
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    default:
      throw new Error(`the schema uses the type ${JSON.stringify(type)}`);
  }
}

function isObject(value: JsonValue): value is JsonSchema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function asText(value: JsonValue): string {
  if (typeof value !== "string") throw new Error("no text");
  return value;
}

function asSchema(value: JsonValue): JsonSchema {
  if (!isObject(value)) throw new Error("no schema");
  return value;
}

function asSchemas(value: JsonValue): JsonSchema[] {
  if (!Array.isArray(value)) throw new Error("no list of schemas");
  return value.map(asSchema);
}
