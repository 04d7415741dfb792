/**
 * A Postfix policy server (SMTPD_POLICY_README) inside the test: Postfix asks it about each recipient and at the end of
 * each message, so a test can change refusals while the server runs, and read what Postfix itself saw of the client:
 * its address, TLS version and certificate fingerprint.
 *
 * Promises one answer a request, `DUNNO` unless a refusal says otherwise. The connection is kept by Postfix; `close`
 * cuts it.
 */

import { createServer, type Socket } from "node:net";

/** The attributes of one request: `protocol_state`, `client_address`, `sender`, `recipient`, `ccert_fingerprint`, … */
export type PolicyRequest = Record<string, string>;

/** The answer: an action of access(5) such as `550 5.1.1 No such user`; undefined lets Postfix go on. */
export type Policy = (request: PolicyRequest) => string | undefined;

export interface PolicyServer {
  address: string;
  port: number;
  requests: PolicyRequest[];
  close(): Promise<void>;
}

export async function startPolicyServer(address: string, policy: Policy): Promise<PolicyServer> {
  const requests: PolicyRequest[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    // Postfix ends its processes as it likes, also while an answer is under way.
    socket.on("error", () => socket.destroy());
    answer(socket, (request) => {
      requests.push(request);
      return policy(request);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port: 0 }, resolve);
  });
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new Error("the policy server has no port");
  return {
    address,
    port: bound.port,
    requests,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function answer(socket: Socket, policy: Policy): void {
  let unread = "";
  socket.setEncoding("utf8");
  socket.on("data", (text: string) => {
    unread += text;
    for (let end = unread.indexOf("\n\n"); end >= 0; end = unread.indexOf("\n\n")) {
      const request = parse(unread.slice(0, end));
      unread = unread.slice(end + 2);
      socket.write(`action=${policy(request) ?? "DUNNO"}\n\n`);
    }
  });
}

function parse(text: string): PolicyRequest {
  const request: PolicyRequest = {};
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    if (equals > 0) request[line.slice(0, equals)] = line.slice(equals + 1);
  }
  return request;
}
