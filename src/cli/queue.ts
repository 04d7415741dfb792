/**
 * `pinrelay queue`: what waits in the spool, and why. Reads beside a running deliverer and changes nothing.
 */
import type { Command } from "commander";
import { pathText } from "../mail/address.ts";
import { readMessage, readQueue, type QueueDetails } from "../spool/directory/queue-reader.ts";
import type { QueueEntry } from "../spool/spool.ts";
import { configOption, examples, jsonOption, loadValidConfig, newCommand } from "./command.ts";
import { CliError, formatTable, printable, type Output } from "./output.ts";

export function queueCommand(output: Output): Command {
  return newCommand("queue", output)
    .description("what waits in the spool")
    .addCommand(listCommand(output))
    .addCommand(showCommand(output));
}

interface Options {
  readonly config: string;
  readonly json?: boolean;
}

function listCommand(output: Output): Command {
  return newCommand("list", output)
    .description("lists the messages that are not delivered yet, oldest first")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText("after", examples("pinrelay queue list", "pinrelay queue list --json"))
    .action(async (options: Options) => {
      const now = new Date();
      const config = await loadValidConfig(options.config, now, output);
      const entries: QueueEntry[] = [];
      for await (const entry of readQueue(config.spool.path)) {
        if (options.json === true) output.out(`${JSON.stringify(entry)}\n`);
        else entries.push(entry);
      }
      if (options.json === true) return;
      if (entries.length === 0) output.out("The queue is empty.\n");
      else
        output.out(
          formatTable(
            entries.map((entry) => row(entry, now)),
            ["id", "partner", "state", "age", "next", "size", "to", "reason"],
          ),
        );
    });
}

function showCommand(output: Output): Command {
  return newCommand("show", output)
    .description("shows one message: its envelope, each recipient's state, and each attempt with the remote's words")
    .argument("<id>", "the queue id")
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (id: string, options: Options) => {
      const now = new Date();
      const config = await loadValidConfig(options.config, now, output);
      const message = await readMessage(config.spool.path, id);
      if (message === undefined) {
        throw new CliError(
          1,
          `no message ${printable(id)} in the queue: it was delivered or reported, or never taken; the log knows`,
        );
      }
      output.out(options.json === true ? `${JSON.stringify(message, null, 2)}\n` : details(message, now));
    });
}

function row({ meta, state, recipients }: QueueEntry, now: Date): string[] {
  const pending = recipients.filter((recipient) => recipient.state === "pending");
  const [first] = pending;
  const path = first === undefined ? undefined : meta.envelope.recipients[first.index]?.path;
  const others = pending.length > 1 ? ` +${pending.length - 1}` : "";
  const next = pending.flatMap(({ nextAttemptAtMs }) => nextAttemptAtMs ?? []);
  return [
    meta.id,
    meta.partner ?? "(report)",
    state,
    duration(now.getTime() - meta.receivedAtMs),
    next.length === 0 ? "" : duration(Math.min(...next) - now.getTime()),
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

/** A time span in its two largest units: `3h 20m`. */
export function duration(ms: number): string {
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
  const parts = units.slice(first, first + 2).flatMap(([name, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count === 0 ? [] : `${count}${name}`;
  });
  return parts.join(" ");
}
