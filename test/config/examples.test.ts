import { expect, it } from "vitest";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCheck } from "../../src/cli/check.ts";
import { loadConfig } from "../../src/config/load.ts";
import { authority, folderWith, now, server, shown } from "./support.ts";

const configFolder = join(import.meta.dirname, "../../config");

it("the examples in config/ are valid once there are certificates", async () => {
  const folder = await folderWith({});
  await cp(configFolder, join(folder, "config"), { recursive: true });
  const without = await loadConfig(join(folder, "config/relay.yaml"), now);
  expect(without.kind === "invalid" && shown(without.problems, folder)).toEqual([
    expect.stringContaining(
      "tls.certificate: certs/server.pem does not exist: `pinrelay ca init` and `pinrelay ca issue HOSTNAME",
    ),
    expect.stringContaining("tls.trust-anchor: certs/ca.pem does not exist"),
  ]);

  await mkdir(join(folder, "certs"));
  await writeFile(join(folder, "certs/server.pem"), server.pem);
  await writeFile(join(folder, "certs/server.key"), server.keyPem, { mode: 0o600 });
  await writeFile(join(folder, "certs/ca.pem"), authority.pem);
  const result = await loadConfig(join(folder, "config/relay.yaml"), now);
  if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
  expect(result.warnings).toEqual([]);
  expect(result.config.partners.map(({ name }) => name)).toEqual(["acme", "globex"]);
  const checked = await runCheck(join(folder, "config/relay.yaml"), { json: false, now, cwd: folder });
  expect(checked.exitCode).toBe(0);
});

it("the defaults that the example writes out are the defaults", async () => {
  const text = await readFile(join(configFolder, "relay.yaml"), "utf8");
  const certificates = { "certs/server.pem": server.pem, "certs/ca.pem": authority.pem };
  const short = text.replace(/^partners:.*\n\nspool:.*\n/m, "").replace(/^# Mail that cannot[^]*/m, "");
  const load = async (relayYaml: string) => {
    const folder = await folderWith({ ...certificates, "config/relay.yaml": relayYaml, "config/partners/README": "" });
    const result = await loadConfig(join(folder, "config/relay.yaml"), now);
    if (result.kind === "invalid") throw new Error(shown(result.problems, folder).join("\n"));
    const { routes: _routes, version: _version, ...config } = result.config;
    return JSON.stringify(config).replaceAll(folder, "");
  };
  expect(short.length).toBeLessThan(text.length - 500);
  expect(await load(short)).toBe(await load(text));
});

it("every example names its schema, and the schema is there", async () => {
  const files = ["relay.yaml", ...(await readdir(join(configFolder, "partners"))).map((name) => `partners/${name}`)];
  expect(files).toHaveLength(3);
  for (const file of files) {
    const [first = ""] = (await readFile(join(configFolder, file), "utf8")).split("\n");
    const schema = /^# yaml-language-server: \$schema=(\S+)$/.exec(first)?.[1] ?? "none";
    await expect(readFile(join(configFolder, file, "..", schema), "utf8")).resolves.toContain("draft/2020-12");
  }
});
