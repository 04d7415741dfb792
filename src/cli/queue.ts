/**
 * `pinrelay queue`: what waits in the spool, and why; and the operator's hand in it. Safe beside a running deliverer.
 */
import type { Command } from "commander";
import { pathText } from "../mail/address.ts";
import { readMessage, readQueue, type QueueDetails } from "../spool/directory/queue-reader.ts";
import { QueueAdmin } from "../spool/directory/queue-admin.ts";
import type { QueueChange, QueueEntry } from "../spool/spool.ts";
import { configOption, examples, findSpool, jsonOption, newCommand } from "./command.ts";
import { CliError, formatTable, jsonText, printable, type Output } from "./output.ts";
import { selectionOf, withSelection, type SelectionOptions } from "./queue-selection.ts";

export function queueCommand(output: Output): Command {
  const queue = newCommand("queue", output)
    .description("what waits in the spool, and what to do with it")
    .addCommand(listCommand(output))
    .addCommand(showCommand(output));
  for (const change of changes) queue.addCommand(changeCommand(change, output));
  return queue;
}

interface Options {
  readonly config: string;
  readonly json?: boolean;
}

function listCommand(output: Output): Command {
  return withSelection(newCommand("list", output), "reads")
    .description("lists the messages that are not delivered yet: those not tried yet first, oldest first")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      examples(
        "pinrelay queue list",
        "pinrelay queue list --partner acme --older-than 1h",
        "pinrelay queue list --json",
      ),
    )
    .action(async (ids: string[], options: Options & SelectionOptions) => {
      const now = new Date();
      const { path } = await findSpool(options.config, now, output);
      const selection = selectionOf(ids, options, now, "reads");
      const entries: QueueEntry[] = [];
      for await (const entry of readQueue(path, selection)) {
        if (options.json === true) output.out(jsonText(entry, 0));
        else entries.push(entry);
      }
      if (options.json === true) return;
      if (entries.length === 0) output.out("Nothing of the kind waits.\n");
      else
        output.out(
          formatTable(
            entries.map((entry) => row(entry, now)),
            listHeader,
          ),
        );
    });
}

const listHeader = ["id", "partner", "state", "age", "next", "size", "to", "reason"];

/** The commands that change something, and what they say of it. */
const changes = [
  { name: "retry", description: "makes deferred messages due now; held ones stay held", done: "is due now" },
  { name: "hold", description: "keeps messages from being tried until they are released", done: "is held" },
  {
    name: "release",
    description: "lets held messages go, and takes back what was asked for and not done yet",
    done: "is released",
  },
  { name: "bounce", description: "sends messages back: their senders are told that they failed", done: "is sent back" },
  { name: "remove", description: "drops messages without a word to anybody", done: "is removed" },
] as const;

function changeCommand({ name, description, done }: (typeof changes)[number], output: Output): Command {
  return withSelection(newCommand(name, output), "changes")
    .description(description)
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      examples(`pinrelay queue ${name} 0mwu5e33nsyq4dtcqr`, `pinrelay queue ${name} --partner acme --older-than 1h`),
    )
    .action(async (ids: string[], options: Options & SelectionOptions) => {
      const now = new Date();
      const { path } = await findSpool(options.config, now, output);
      const selection = selectionOf(ids, options, now, "changes");
      const admin = new QueueAdmin(path);
      try {
        const changed = await admin[name](selection);
        if (options.json === true) for (const change of changed) output.out(jsonText(change, 0));
        else for (const { id, outcome } of changed) output.out(`${id} ${outcomeText(outcome, done)}\n`);
        if (changed.length === 0) throw new CliError(1, "no such message waits: see pinrelay queue list");
      } finally {
        admin.close();
      }
    });
}

function outcomeText(outcome: QueueChange["outcome"], done: string): string {
  switch (outcome) {
    case "done":
      return done;
    case "requested":
      return `${done} as soon as the deliverer comes to it`;
    case "unchanged":
      return "stays as it is";
  }
}

function showCommand(output: Output): Command {
  return newCommand("show", output)
    .description("shows one message: its envelope, each recipient's state, and each attempt with the remote's words")
    .argument("<id>", "the queue id")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (id: string, options: Options) => {
      const now = new Date();
      const { path } = await findSpool(options.config, now, output);
      const message = await readMessage(path, id);
      if (message === undefined) {
        throw new CliError(
          1,
          `no message ${printable(id)} in the queue: it was delivered or reported, or never taken; the log knows`,
        );
      }
      output.out(options.json === true ? jsonText(message) : details(message, now));
    });
}

function row({ meta, state, request, recipients }: QueueEntry, now: Date): string[] {
  const pending = recipients.filter((recipient) => recipient.state === "pending");
  const [first] = pending;
  const path = first === undefined ? undefined : meta.envelope.recipients[first.index]?.path;
  const others = pending.length > 1 ? ` +${pending.length - 1}` : "";
  const next = pending.flatMap(({ nextAttemptAtMs }) => nextAttemptAtMs ?? []);
  return [
    meta.id,
    meta.partner ?? "(report)",
    request === null ? state : `${state}, ${request} asked`,
    duration(now.getTime() - meta.receivedAtMs, 1),
    next.length === 0 ? "" : duration(Math.min(...next) - now.getTime(), 1),
    String(meta.sizeBytes),
    `${path === undefined ? "" : pathText(path)}${others}`,
    first?.lastText ?? "",
  ];
}

function details({ meta, state, recipients, attempts }: QueueDetails, now: Date): string {
  const lines = [
    `id         ${meta.id}`,
    `state      ${state}`,
    `partner    ${meta.partner ?? "(a report of our own)"}`,
    `from       <${pathText(meta.envelope.reversePath)}>`,
    `received   ${new Date(meta.receivedAtMs).toISOString()} (${duration(now.getTime() - meta.receivedAtMs)} ago)`,
    `size       ${meta.sizeBytes} octets, SHA-256 ${meta.sha256}`,
    ...(meta.session === null
      ? []
      : [`session    ${meta.session.id} from ${meta.session.address} (${meta.session.helo})`]),
    "",
    "recipients",
    ...recipients.map(({ index, state: settled, attempts: count, nextAttemptAtMs, route }) => {
      const path = meta.envelope.recipients[index]?.path;
      const next = nextAttemptAtMs === null ? "" : `, next at ${new Date(nextAttemptAtMs).toISOString()}`;
      const tried = count === 0 ? "" : `, ${count} attempt${count === 1 ? "" : "s"}${next}`;
      return `  <${path === undefined ? "" : pathText(path)}> ${settled}${route === null ? "" : ` by ${route}`}${tried}`;
    }),
    "",
    attempts.length === 0 ? "no attempts yet" : "attempts",
    ...attempts.map(
      ({ atMs, server, text, recipients: concerned }) =>
        `  ${new Date(atMs).toISOString()} ${server ?? "(no server)"}, ${concerned.length} recipient${concerned.length === 1 ? "" : "s"}: ${text}`,
    ),
  ];
  return lines.map((line) => `${printable(line)}\n`).join("");
}

/** A time span in its largest units, two of them unless told otherwise: `3h 20m`. */
export function duration(ms: number, unitsMax = 2): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const units: Array<[name: string, seconds: number]> = [
    ["d", 86_400],
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0s";
  let rest = seconds;
  const parts = units.slice(first, first + unitsMax).flatMap(([name, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count === 0 ? [] : `${count}${name}`;
  });
  return parts.join(" ");
}
