/**
 * `npm run bench`: the relay and a well-tuned Postfix side by side on loopback, in the same run and in random order, with
 * the same load, the same certificates and the same sink. Prints a table and writes `var/bench.json`.
 *
 * `--short` is for CI: fewer messages and rounds, and exit status 1 if the relay needs more than half as much CPU again per
 * message, against Postfix in the same run, as `bench/expected.json` says. `--scenario i` runs one scenario.
 */
import { execFile, fork, type ChildProcess } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { cpuSeconds, pssMiB } from "./process-tree.ts";
import { acmeAddress, makeFolder, startBenchPostfix, startPinrelay, type MeasuredServer } from "./servers.ts";

interface Scenario {
  readonly name: string;
  readonly title: string;
  readonly connections: number;
  readonly sizeBytes: number;
  readonly messagesPerConnection: number;
  readonly messages: number;
}

interface Measurement {
  readonly scenario: string;
  readonly server: string;
  readonly acceptedPerSecond: number;
  readonly deliveredPerSecond: number;
  readonly cpuSecondsPer1000: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface Count {
  readonly messages: number;
  readonly duplicates: number;
  readonly lastAtMs: number;
}

const here = import.meta.dirname;
const short = process.argv.includes("--short");
const only = process.argv[process.argv.indexOf("--scenario") + 1];
const rounds = short ? 2 : 5;
const warmUpMessages = short ? 2000 : 6000;

const scenarios: Scenario[] = [
  {
    name: "i",
    title: "20 connections, 4 KiB, many messages each",
    connections: 20,
    sizeBytes: 4096,
    messagesPerConnection: 1000,
    messages: short ? 1500 : 6000,
  },
  {
    name: "ii",
    title: "a new connection and handshake for every message, 20 in parallel",
    connections: 20,
    sizeBytes: 4096,
    messagesPerConnection: 1,
    messages: short ? 400 : 1500,
  },
  {
    name: "iii",
    title: "one connection, one message after the other",
    connections: 1,
    sizeBytes: 4096,
    messagesPerConnection: 10_000,
    messages: short ? 300 : 1500,
  },
  {
    name: "iv",
    title: "1 MiB messages, 20 connections",
    connections: 20,
    sizeBytes: 1024 * 1024,
    messagesPerConnection: 1000,
    messages: short ? 80 : 300,
  },
].filter(({ name }) => !process.argv.includes("--scenario") || name === only);

class Sink {
  readonly #child: ChildProcess;
  readonly port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(certificateFile: string, keyFile: string): Promise<Sink> {
    const child = fork(join(here, "sink.ts"), ["127.0.0.21", certificateFile, keyFile]);
    const { port } = await new Promise<{ port: number }>((done) =>
      child.once("message", (news) => done(news as { port: number })),
    );
    return new Sink(child, port);
  }

  count(question: "count" | "reset" = "count"): Promise<Count> {
    return new Promise((done) => {
      this.#child.once("message", (news) => done(news as Count));
      this.#child.send(question);
    });
  }

  stop(): void {
    this.#child.kill();
  }
}

async function measure(
  scenario: Scenario,
  server: MeasuredServer,
  sink: Sink,
  certs: string,
  run: string,
): Promise<Measurement> {
  await sink.count("reset");
  const cpuBefore = cpuSeconds(server.pid);
  const job = {
    ...scenario,
    host: server.address,
    port: server.port,
    from: acmeAddress,
    certificateFile: join(certs, "acme.pem"),
    keyFile: join(certs, "acme.key"),
    run,
  };
  const { stdout } = await promisify(execFile)(process.execPath, [join(here, "load.ts"), JSON.stringify(job)]).catch(
    async (cause: unknown) => {
      throw new Error(`the load on ${server.name} failed; its last words:\n${await server.lastWords()}`, { cause });
    },
  );
  const load = JSON.parse(stdout) as {
    accepted: number;
    seconds: number;
    startedAtMs: number;
    p50Ms: number;
    p99Ms: number;
  };
  const count = await untilDelivered(sink, load.accepted);
  if (count.messages !== load.accepted || count.duplicates > 0) {
    throw new Error(
      `${server.name}: ${load.accepted} accepted, ${count.messages} delivered, ${count.duplicates} twice`,
    );
  }
  const cpu = cpuSeconds(server.pid) - cpuBefore;
  return {
    scenario: scenario.name,
    server: server.name,
    acceptedPerSecond: load.accepted / load.seconds,
    deliveredPerSecond: load.accepted / ((count.lastAtMs - load.startedAtMs) / 1000),
    cpuSecondsPer1000: (cpu / load.accepted) * 1000,
    p50Ms: load.p50Ms,
    p99Ms: load.p99Ms,
  };
}

async function untilDelivered(sink: Sink, wanted: number): Promise<Count> {
  let count = await sink.count();
  for (let idle = 0, last = 0; count.messages < wanted && idle < 600; idle++) {
    await new Promise((next) => setTimeout(next, 100));
    count = await sink.count();
    if (count.messages > last) idle = 0;
    last = count.messages;
  }
  return count;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

interface Row {
  readonly scenario: string;
  readonly title: string;
  readonly cpuRatio: number;
  readonly deliveredRatio: number;
  readonly p50Ratio: number;
  readonly p99Ratio: number;
  readonly pinrelay: Record<string, number>;
  readonly postfix: Record<string, number>;
}

function rowOf(scenario: Scenario, all: readonly Measurement[]): Row {
  const keys = ["acceptedPerSecond", "deliveredPerSecond", "cpuSecondsPer1000", "p50Ms", "p99Ms"] as const;
  const mediansOf = (server: string) => {
    const measured = all.filter((one) => one.scenario === scenario.name && one.server === server);
    return Object.fromEntries(keys.map((key) => [key, median(measured.map((one) => one[key]))]));
  };
  const [pinrelay, postfix] = [mediansOf("pinrelay"), mediansOf("postfix")];
  const ratio = (a: number | undefined, b: number | undefined) => (a ?? 0) / (b ?? 1);
  return {
    scenario: scenario.name,
    title: scenario.title,
    cpuRatio: ratio(postfix["cpuSecondsPer1000"], pinrelay["cpuSecondsPer1000"]),
    deliveredRatio: ratio(pinrelay["deliveredPerSecond"], postfix["deliveredPerSecond"]),
    p50Ratio: ratio(pinrelay["p50Ms"], postfix["p50Ms"]),
    p99Ratio: ratio(pinrelay["p99Ms"], postfix["p99Ms"]),
    pinrelay,
    postfix,
  };
}

function table(rows: readonly Row[]): string {
  const number = (value: number | undefined, digits: number) => (value ?? 0).toFixed(digits);
  const lines = rows.map(({ scenario, title, pinrelay, postfix, cpuRatio, deliveredRatio, p50Ratio, p99Ratio }) =>
    [
      `${scenario}: ${title}`,
      `${number(pinrelay["deliveredPerSecond"], 0)} / ${number(postfix["deliveredPerSecond"], 0)} (×${number(deliveredRatio, 1)})`,
      `${number(pinrelay["cpuSecondsPer1000"], 2)} / ${number(postfix["cpuSecondsPer1000"], 2)} (÷${number(cpuRatio, 1)})`,
      `${number(pinrelay["p50Ms"], 1)} / ${number(postfix["p50Ms"], 1)} (×${number(p50Ratio, 2)})`,
      `${number(pinrelay["p99Ms"], 1)} / ${number(postfix["p99Ms"], 1)} (×${number(p99Ratio, 2)})`,
    ].join(" | "),
  );
  return [
    "pinrelay / Postfix, medians | delivered/s | CPU s per 1000 | reply p50, ms | reply p99, ms",
    "--- | --- | --- | --- | ---",
    ...lines,
  ]
    .map((line) => `| ${line} |`)
    .join("\n");
}

async function main(): Promise<void> {
  let sink: Sink | undefined;
  const folder = await makeFolder(() => Promise.resolve(9));
  const certs = join(folder.path, "certs");
  sink = await Sink.start(join(certs, "inside.pem"), join(certs, "inside.key"));
  const text = await readFile(folder.configFile, "utf8");
  await writeFile(folder.configFile, text.replace("port: 9,", `port: ${sink.port},`));
  const partnerFile = join(folder.path, "config", "partners", "acme.yaml");
  await writeFile(
    partnerFile,
    `${await readFile(partnerFile, "utf8")}limits: { messages-per-minute: 1000000, connections: 1000 }\n`,
  );
  await writeFile(
    folder.configFile,
    `${await readFile(folder.configFile, "utf8")}limits: { connections: 2000, connections-per-address: 2000, handshakes-per-minute: 1000000, transactions: 1000000 }\n`,
  );
  const servers = [await startPinrelay(folder), await startBenchPostfix(folder, sink.port)];
  const measurements: Measurement[] = [];
  try {
    const rest = Object.fromEntries(servers.map(({ name, pid }) => [name, Math.round(pssMiB(pid))]));
    for (const server of servers) {
      const warmUp = {
        ...scenarios[0],
        name: "warm-up",
        title: "",
        connections: 20,
        sizeBytes: 4096,
        messagesPerConnection: 1000,
        messages: warmUpMessages,
      };
      await measure(warmUp, server, sink, certs, `warm-${server.name}`);
    }
    for (const scenario of scenarios) {
      for (let round = 0; round < rounds; round++) {
        for (const server of Math.random() < 0.5 ? servers : servers.toReversed()) {
          measurements.push(await measure(scenario, server, sink, certs, `${scenario.name}-${round}-${server.name}`));
          process.stderr.write(`${JSON.stringify(measurements.at(-1))}\n`);
        }
      }
    }
    const rows = scenarios.map((scenario) => rowOf(scenario, measurements));
    process.stdout.write(`${table(rows)}\n\nPSS at rest, MiB: ${JSON.stringify(rest)}\n`);
    await mkdir(resolve(here, "../var"), { recursive: true });
    await writeFile(resolve(here, "../var/bench.json"), `${JSON.stringify({ rows, rest, measurements }, null, 2)}\n`);
    if (short) await gate(rows);
  } finally {
    for (const server of servers) await server.stop();
    sink.stop();
    await folder.remove();
  }
}

/** CPU per message against Postfix in the same run must not be more than half as much again as it was. */
async function gate(rows: readonly Row[]): Promise<void> {
  const expected = JSON.parse(await readFile(join(here, "expected.json"), "utf8")) as Record<string, number>;
  for (const { scenario, cpuRatio } of rows) {
    const least = (expected[scenario] ?? 0) / 1.5;
    if (cpuRatio >= least) continue;
    process.stderr.write(
      `scenario ${scenario}: Postfix needs ${cpuRatio.toFixed(2)} times our CPU, expected at least ${least.toFixed(2)}\n`,
    );
    process.exitCode = 1;
  }
}

await main();
