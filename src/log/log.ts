/**
 * The log: pino, one JSON line an event. The one importer of `pino`.
 *
 * What a peer sent goes into a field of its own (`client`, `remote`), never into a key or the message text, so that no
 * peer can forge a field; pino escapes the rest. No message content and no key material is ever handed to it.
 */
import { destination, pino, stdTimeFunctions, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/**
 * @param process name of the compartment, for instance "receiver".
 * @param output where lines go; standard output unless told otherwise.
 */
export function createLog(process: string, output?: DestinationStream): Log {
  return pino(
    {
      level: "info",
      base: { process, pid: globalThis.process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    output ?? destination({ dest: 1, sync: false }),
  );
}
