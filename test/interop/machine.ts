/**
 * A mail server whose package keeps others from being installed beside it, as a process that believes to be alone: it
 * sees its own program in /usr, its own files in /etc, an empty /run and a /var of its own, by mounts that nobody
 * else sees, and its processes are in a namespace that ends with it. Network and /tmp are those of the test: it talks
 * on loopback alone, and there is no name server for it.
 *
 * `startMachine` returns once the port answers. `stop` ends the server by its process id and removes its directory; a
 * guard does the same if this process dies. Needs root. Fails with what the server printed.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { chmod, chown, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { groupIsAlive, Guard, output, portIsTaken, temporaryDirectory, until } from "./processes.ts";

/** Where `fetch-servers.sh` unpacks the packages. */
export function unpacked(server: string): string {
  return resolve(import.meta.dirname, ".cache", server);
}

export interface MachineOptions {
  /** As `fetch-servers.sh` calls it. */
  readonly server: string;
  readonly hostname: string;
  /** Users (and groups of their name) that its package would have made, with their numbers. */
  readonly accounts: Readonly<Record<string, number>>;
  /** Path in /etc or /var → what it holds. */
  readonly files: Readonly<Record<string, MachineFile | string>>;
  /** Directories to make in /etc or /var. */
  readonly directories: ReadonlyArray<{ path: string; mode: number; owner?: number; group?: number }>;
  /** Run before the server: a shell script. */
  readonly prepare?: string;
  /** The server, in the foreground. */
  readonly command: readonly string[];
  /** Where it answers when it is ready. */
  readonly port: number;
}

export interface MachineFile {
  readonly text: string;
  readonly mode?: number;
  readonly group?: number;
}

const readyDeadlineMs = 20_000;
const stopDeadlineMs = 10_000;

/** $1: the directory; $2: the unpacked packages; $3: a script; then the command. */
const inside = `set -e
mount -t proc proc /proc
mount -t overlay overlay -o "lowerdir=$2/usr:/usr,upperdir=$1/usr,workdir=$1/usr.work" /usr
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/var,upperdir=$1/var,workdir=$1/var.work" /var
mount -t tmpfs -o mode=755 tmpfs /run
unset LD_LIBRARY_PATH
trap 'exit 0' TERM
sh -ec "$3"
shift 3
"$@" &
wait $!`;

export async function startMachine(options: MachineOptions): Promise<Machine> {
  const directory = await temporaryDirectory(options.server);
  let machine: Machine | undefined;
  try {
    await furnish(directory, options);
    machine = new Machine(directory, options);
    await machine.ready();
    return machine;
  } catch (error) {
    await machine?.stop();
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function furnish(directory: string, options: MachineOptions): Promise<void> {
  for (const name of ["usr", "usr.work", "etc", "etc.work", "var", "var.work"]) await mkdir(join(directory, name));
  for (const { path, mode, owner = 0, group = 0 } of options.directories) {
    await mkdir(join(directory, path), { recursive: true });
    await chown(join(directory, path), owner, group);
    await chmod(join(directory, path), mode);
  }
  const accounts = Object.entries(options.accounts);
  const files: Record<string, MachineFile | string> = {
    "/etc/passwd": `${await readFile("/etc/passwd", "utf8")}${accounts.map(([name, id]) => `${name}:x:${id}:${id}::/nonexistent:/usr/sbin/nologin\n`).join("")}`,
    "/etc/group": `${await readFile("/etc/group", "utf8")}${accounts.map(([name, id]) => `${name}:x:${id}:\n`).join("")}`,
    "/etc/hosts": `127.0.0.1 localhost ${options.hostname}\n`,
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    ...options.files,
  };
  for (const [path, file] of Object.entries(files)) {
    const { text, mode = 0o644, group = 0 } = typeof file === "string" ? { text: file } : file;
    await mkdir(dirname(join(directory, path)), { recursive: true });
    await writeFile(join(directory, path), text);
    await chown(join(directory, path), 0, group);
    await chmod(join(directory, path), mode);
  }
}

export class Machine {
  readonly directory: string;
  readonly #options: MachineOptions;
  readonly #child: ChildProcess;
  readonly #guard: Guard;
  readonly #exit: Promise<void>;
  #printed = "";
  #stopped: Promise<void> | undefined;

  constructor(directory: string, options: MachineOptions) {
    this.directory = directory;
    this.#options = options;
    // The namespaces' first process ends with `unshare`, and everything in them with that one.
    const script = ["sh", "-c", inside, "sh", directory, unpacked(options.server), options.prepare ?? ":"];
    this.#child = spawn("unshare", ["--mount", "--pid", "--fork", "--kill-child", ...script, ...options.command], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on("data", (text: Buffer) => (this.#printed += text.toString()));
    }
    this.#exit = new Promise((done) => {
      this.#child.once("exit", () => done());
      this.#child.once("error", () => done());
    });
    if (this.#child.pid === undefined) throw new Error("unshare cannot be started");
    this.#guard = new Guard(this.#child.pid, directory);
  }

  /** What the server has printed. */
  get printed(): string {
    return this.#printed;
  }

  async ready(): Promise<void> {
    const { server, port } = this.#options;
    await until(
      `the start of ${server}`,
      async () => {
        if (this.#child.exitCode !== null) throw new Error(`${server} ended at once:\n${this.#printed}`);
        return (await portIsTaken("127.0.0.1", port)) || undefined;
      },
      { deadlineMs: readyDeadlineMs, report: async () => this.#printed },
    );
  }

  /** Runs a program on the machine; what it printed. Fails if the program does. */
  async run(program: string, ...args: string[]): Promise<string> {
    const pid = String(this.#child.pid);
    const [first = ""] = (await readFile(`/proc/${pid}/task/${pid}/children`, "latin1")).trim().split(" ");
    return (await output("nsenter", ["--target", first, "--mount", "--pid", program, ...args])).toString();
  }

  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    await this.#stopped;
  }

  async #stop(): Promise<void> {
    const pid = this.#child.pid ?? 0;
    this.#child.kill("SIGKILL");
    try {
      const ended = async () => ((await groupIsAlive(pid)) ? undefined : true);
      await until(`the end of ${this.#options.server}`, ended, { deadlineMs: stopDeadlineMs });
    } finally {
      await this.#exit;
      this.#guard.dismiss();
      await rm(this.directory, { recursive: true, force: true });
    }
  }
}
