/** Limits as they are written: their defaults stand in `load.test.ts`. */
import { describe, expect, it } from "vitest";
import { loaded, partnerYaml, problemsOf, relayYaml } from "./support.ts";

describe("the limits of the relay", () => {
  it("are all taken as they are written", async () => {
    const { config, warnings } = await loaded({
      "relay.yaml": relayYaml(`limits:
  message-size: 50MiB
  connections: 1
  connections-per-address: 2
  turned-away: 3
  handshakes-per-minute: 4
  spool-bytes: 1TiB
  commands: 5
  bad-commands: 6
  command-line: 2KiB
  transactions: 7
  header-size: 1MiB
  header-lines: 8
  hops: 9
  timeouts: { idle: 10s, handshake: 11s, session: 12m, message: 13h }
`),
    });
    expect(warnings).toEqual([]);
    expect(config.limits).toEqual({
      messageBytesMax: 50 * 1024 ** 2,
      connectionsMax: 1,
      connectionsPerAddressMax: 2,
      turnedAwayMax: 3,
      handshakesPerMinute: 4,
      spoolBytesMax: 1024 ** 4,
      commandsMax: 5,
      badCommandsMax: 6,
      commandLineBytesMax: 2048,
      transactionsMax: 7,
      headerBytesMax: 1024 ** 2,
      headerLinesMax: 8,
      hopsMax: 9,
      timeouts: { idleMs: 10_000, handshakeMs: 11_000, sessionMs: 720_000, messageMs: 46_800_000 },
    });
  });

  it("have their defaults one by one", async () => {
    const { config } = await loaded({ "relay.yaml": relayYaml("limits: { timeouts: { idle: 1m } }") });
    expect(config.limits).toMatchObject({
      commandsMax: 100,
      timeouts: { idleMs: 60_000, handshakeMs: 30_000, sessionMs: 3_600_000, messageMs: 600_000 },
    });
  });

  it.each([
    ["turned-away: 0", "limits.turned-away: must be a whole number from 1"],
    ["handshakes-per-minute: 0", "limits.handshakes-per-minute: must be a whole number from 1"],
    ["handshakes-per-minute: 2.5", "limits.handshakes-per-minute: must be a whole number from 1"],
    ["commands: -1", "limits.commands: must be a whole number from 1"],
    ["bad-commands: '10'", "limits.bad-commands: must be a whole number from 1 to 1000000, without quotes"],
    ["transactions: 1000001", "limits.transactions: must be a whole number from 1 to 1000000; it is 1000001"],
    ["command-line: 512", "limits.command-line: must be from 1048 to 65536 bytes; it is 512"],
    ["command-line: 1MiB", 'limits.command-line: must be from 1048 to 65536 bytes; it is "1MiB"'],
    ["header-size: 1023", "limits.header-size: must be from 1024 to 16777216 bytes; it is 1023"],
    ["header-size: 17MiB", "limits.header-size: must be from 1024 to 16777216 bytes"],
    ["header-lines: 0", "limits.header-lines: must be a whole number from 1"],
    ["hops: many", "limits.hops: must be a whole number from 1"],
    ["timeouts: 5m", "limits.timeouts: must be a map of keys; its keys are idle, handshake, session, message"],
    ["timeouts: { idle: 0s }", "limits.timeouts.idle: must be a duration with its unit"],
    ["timeouts: { handshake: 30 }", "limits.timeouts.handshake: must be a duration with its unit"],
    ["timeouts: { session: 30d }", "limits.timeouts.session: must be at most 20d"],
    ["timeouts: { command: 5m }", "limits.timeouts.command: is no key: the keys here are idle"],
  ])("are refused: %s", async (written, expected) => {
    const problems = await problemsOf({ "relay.yaml": relayYaml(`limits: { ${written} }`) });
    expect(problems).toEqual([expect.stringContaining(`relay.yaml:10: error: ${expected}`)]);
  });
});

describe("the limits of a partner", () => {
  it("are all taken as they are written", async () => {
    const { config, warnings } = await loaded({
      "partners/acme.yaml": partnerYaml(`limits:
  message-size: 1MiB
  recipients: 1
  messages-per-minute: 2
  messages-per-day: 2000000
  bytes-per-minute: 3KiB
  bytes-per-day: 4GiB
  recipients-per-minute: 5
  recipients-per-day: 6
  connections: 7
  queue-bytes: 8
`),
    });
    expect(warnings).toEqual([]);
    expect(config.partners[0]?.limits).toEqual({
      messageBytesMax: 1024 ** 2,
      recipientsMax: 1,
      messagesPerMinute: 2,
      messagesPerDay: 2_000_000,
      bytesPerMinute: 3072,
      bytesPerDay: 4 * 1024 ** 3,
      recipientsPerMinute: 5,
      recipientsPerDay: 6,
      connectionsMax: 7,
      queueBytesMax: 8,
    });
  });

  it.each([
    ["messages-per-day: 0", "limits.messages-per-day: must be a whole number from 1"],
    ["bytes-per-minute: 0", "limits.bytes-per-minute: must be a size above zero"],
    ["bytes-per-day: 1GB", "limits.bytes-per-day: must be a size above zero"],
    ["recipients-per-minute: none", "limits.recipients-per-minute: must be a whole number from 1"],
    ["recipients-per-day: null", "limits.recipients-per-day: must be a whole number from 1"],
    ["messages-per-hour: 1", "limits.messages-per-hour: is no key"],
  ])("are refused: %s", async (written, expected) => {
    const problems = await problemsOf({ "partners/acme.yaml": partnerYaml(`limits: { ${written} }`) });
    expect(problems).toEqual([expect.stringContaining(`partners/acme.yaml:5: error: ${expected}`)]);
  });
});
